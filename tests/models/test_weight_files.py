"""State dicts that a name chooses in a file, and files that hold no plain weights."""

import argparse
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

from kdx.core.errors import UserError
from kdx.models import convert
from kdx.models.small import MLP
from kdx.models.weights import CheckpointError, check_weights, load_weights, sha256


def mlp(seed: int) -> MLP:
    torch.manual_seed(seed)
    return MLP(hidden=(6,), dropout=0.0, activation="relu", num_classes=4, input_shape=(3,))


def holds(net: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(net.state_dict().values(), other.state_dict().values(), strict=True))


RAW, AVERAGED = (mlp(seed).state_dict() for seed in (0, 1))
FILES = {  # what a torch file holds, and the names of its state dicts
    "flat": ({"epoch": 3, "state_dict": RAW, "state_dict_ema": AVERAGED}, "state_dict", "state_dict_ema"),
    "averaged first": ({"state_dict_ema": AVERAGED, "state_dict": RAW}, "state_dict", "state_dict_ema"),
    "nested": ({"model": {"student": RAW, "module_ema": AVERAGED}}, "model.student", "model.module_ema"),
    "a dot in a name": ({"net": {"state_dict": RAW, "v2.ema": AVERAGED}}, "net", "net.v2.ema"),
    "wrapped": ({"model": RAW, "ema": {"module": {}, "state_dict": AVERAGED}}, "model", "ema"),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_name_chooses_among_state_dicts(tmp_path, kind):
    content, raw, averaged = FILES[kind]
    path = tmp_path / "x.pt"
    torch.save(content, path)
    for name, expected in ((f"::{raw}", mlp(0)), (f"::{averaged}", mlp(1)), ("", mlp(0))):
        net = mlp(2)
        check_weights(net, f"{path}{name}")
        said = load_weights(net, f"{path}{name}")
        assert holds(net, expected), name
        assert ("layout" in said) == (name == "" or (kind, name) == ("a dot in a name", "::net"))
    # the sentence is a choice that works
    choice = load_weights(mlp(2), path)["layout"].rpartition("FILE::")[2].split()[0]
    net = mlp(2)
    load_weights(net, f"{path}::{choice}")
    assert holds(net, mlp(1))


def test_the_state_of_an_optimizer_is_no_network(tmp_path):
    torch.save({"model": RAW, "optimizer": {"state": {"w": {"exp_avg": torch.ones(1)}}}}, tmp_path / "x.pt")
    assert load_weights(mlp(2), tmp_path / "x.pt") == {}


def test_an_absent_name_is_refused_with_those_that_are_there(tmp_path):
    path = tmp_path / "x.pt"
    torch.save(FILES["nested"][0] | {"optimizer": {"state": {0: {"exp_avg": torch.ones(1)}}}}, path)
    with pytest.raises(CheckpointError, match=r"x.pt has no state dict 'ema'; it has model.student, model.module_ema$"):
        load_weights(mlp(2), f"{path}::ema")
    with pytest.raises(CheckpointError, match="weights file .*y.pt not found"):
        load_weights(mlp(2), f"{tmp_path}/y.pt::ema")


def test_a_file_whose_name_has_the_mark_is_read_whole(tmp_path):
    torch.save({"state_dict": RAW, "ema": AVERAGED}, tmp_path / "x.pt")
    torch.save(AVERAGED, tmp_path / "x.pt::state_dict")
    net = mlp(2)
    load_weights(net, tmp_path / "x.pt::state_dict")
    assert holds(net, mlp(1))


def test_checksums_of_a_file_and_of_its_parts_differ(tmp_path):
    path = tmp_path / "x.pt"
    torch.save(FILES["flat"][0], path)
    sums = [sha256(f"{path}{name}") for name in ("", "::state_dict", "::state_dict_ema")]
    assert len(set(sums)) == 3 and all(len(checksum) == 64 for checksum in sums)
    torch.save({**FILES["flat"][0], "epoch": 4}, path)
    assert sha256(f"{path}::state_dict_ema") not in sums


BESIDE = {
    "numpy._core.multiarray.scalar": np.float64(0.7),
    "argparse.Namespace": argparse.Namespace(lr=0.1),
}


@pytest.mark.parametrize("archive", [True, False], ids=["zip", "pickle"])
@pytest.mark.parametrize("name", BESIDE)
def test_objects_beside_weights_are_named_with_a_command_that_converts(tmp_path, name, archive):
    path = tmp_path / "own run.pt"
    content = {"state_dict": RAW, "args": BESIDE[name], "optimizer": {"lr": 0.1}, "state_dict_ema": AVERAGED}
    torch.save(content, path, _use_new_zipfile_serialization=archive)
    with pytest.raises(CheckpointError) as error:
        load_weights(mlp(2), path)
    said = str(error.value)
    assert f"holds {name} beside tensors" in said and "can run code" in said and "\n" not in said
    assert len(said.replace(str(tmp_path), "")) < 250
    assert f"`python -m kdx.models.convert '{path}'`" in said
    new = convert.convert(path)
    for key, expected in (("state_dict", mlp(0)), ("state_dict_ema", mlp(1))):
        net = mlp(2)
        load_weights(net, f"{new}::{key}")
        assert holds(net, expected)
    with pytest.raises(UserError, match="exists already"):
        convert.convert(path)


def test_the_command_for_a_whole_module_and_a_script(tmp_path, capsys):
    torch.save({"model": mlp(0)}, tmp_path / "module.pt")
    torch.jit.script(nn.Linear(3, 4)).save(str(tmp_path / "script.pt"))  # pyright: ignore
    for name in ("module.pt", "script.pt"):
        with pytest.raises(CheckpointError, match="`python -m kdx.models.convert .*` writes its weights alone"):
            load_weights(mlp(2), tmp_path / name)
        assert convert.main([str(tmp_path / name)]) == 0
    assert capsys.readouterr().out.splitlines()[0].endswith("module.pt.weights.pt: model")
    net = mlp(2)
    load_weights(net, tmp_path / "module.pt.weights.pt")
    assert holds(net, mlp(0))
    load_weights(nn.Linear(3, 4), tmp_path / "script.pt.weights.pt")


def test_the_command_refuses_what_holds_no_weights(tmp_path, capsys):
    torch.save([1, 2], tmp_path / "list.pt")
    assert convert.main([str(tmp_path / "list.pt")]) == 2 == convert.main([]) == convert.main(["--help"])
    assert "list.pt holds no state dict" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["list.pt"]


@pytest.mark.slow
def test_the_command_is_a_command(tmp_path):
    torch.save({"state_dict": RAW, "best": np.float64(0.7)}, tmp_path / "x.pt")
    command = [sys.executable, "-m", "kdx.models.convert", str(tmp_path / "x.pt")]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout.endswith(": state_dict\n")


@pytest.mark.parametrize("names", [("readme.txt",), ("a.npy", "b.npy"), ()])
def test_an_archive_without_weights_is_named(tmp_path, names):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for name in names:
            archive.writestr(name, "text")
    with pytest.raises(CheckpointError, match="x.zip is a zip archive without weights that torch saved; it holds "):
        load_weights(mlp(2), tmp_path / "x.zip")


def test_a_student_with_a_reused_classifier_is_two_networks(tmp_path):
    other = {"projector.0.weight": torch.ones(1), "head.weight": torch.ones(1)}
    torch.save({f"net.{k}": v for k, v in RAW.items()} | other, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=r"x.pt holds parts of two networks: SimKD's student .* this MLP is one"):
        load_weights(mlp(2), tmp_path / "x.pt")
