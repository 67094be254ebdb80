import hashlib
import os
import pickle

import pytest
import torch
from torch import nn

from kdx.models.small import MLP
from kdx.models.teachers.frozen import Frozen
from kdx.models.weights import CheckpointError, check_weights, load_weights, save_weights, sha256


def mlp(hidden=(6,), classes=4, seed=0) -> MLP:
    torch.manual_seed(seed)
    return MLP(hidden=hidden, dropout=0.0, activation="relu", num_classes=classes, input_shape=(3,))


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_round_trip(tmp_path):
    path = tmp_path / "deep" / "student.safetensors"
    a, b = mlp(), mlp(seed=1)
    save_weights(path, a, {"seed": "0"})
    assert not same(a, b)
    assert load_weights(b, path) == {"seed": "0"}
    assert same(a, b)
    assert os.listdir(path.parent) == [path.name]  # no temporary file is left
    assert sha256(path) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_wrapped_network_is_exported_plain(tmp_path):
    path = tmp_path / "t.safetensors"
    a, b = mlp(), mlp(seed=1)
    save_weights(path, Frozen(a, own=None, given=None), {})
    load_weights(b, path)
    assert same(a, b)
    c = Frozen(mlp(seed=2), own=None, given=None)
    load_weights(c, path)
    assert same(a, c.net)


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "s.safetensors"
    save_weights(path, mlp(), {})
    before = path.read_bytes()

    def fail(fd):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        save_weights(path, mlp(seed=1), {})
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["s.safetensors"]


def test_tied_weights(tmp_path):
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    net[1].weight = net[0].weight
    save_weights(tmp_path / "t.safetensors", net, {})
    other = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    other[1].weight = other[0].weight
    load_weights(other, tmp_path / "t.safetensors")
    assert same(net, other)


def wrapped(kind: str, state):
    return {
        "bare": state,
        "model": {"epoch": 3, "model": state},
        "state_dict": {"state_dict": state, "best": 0.7},
        "parallel": {"model": {f"module.{k}": v for k, v in state.items()}},
        "compiled": {f"_orig_mod.{k}": v for k, v in state.items()},
        "both": {f"module._orig_mod.{k}": v for k, v in state.items()},
        "student": {"student": {"params": {f"model.net.{k}": v for k, v in state.items()}}},
        "averaged": {"n_averaged": torch.tensor(3), **{f"module.{k}": v for k, v in state.items()}},
        "timm": {"weights": {f"timm_model.module.{k}": v for k, v in state.items()}},
    }[kind]


KINDS = ["bare", "model", "state_dict", "parallel", "compiled", "both", "student", "averaged", "timm"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("legacy", [False, True])
def test_torch_files(tmp_path, kind, legacy):
    a, b = mlp(), mlp(seed=1)
    torch.save(wrapped(kind, a.state_dict()), tmp_path / "x.pth", _use_new_zipfile_serialization=not legacy)
    assert load_weights(b, tmp_path / "x.pth") == {}
    assert same(a, b)


def test_old_files_without_batch_counters(tmp_path):
    a, b = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    nn.init.normal_(a.weight)
    state = {k: v for k, v in a.state_dict().items() if k != "num_batches_tracked"}
    torch.save(state, tmp_path / "x.pt")
    load_weights(b, tmp_path / "x.pt")
    assert torch.equal(a.weight, b.weight)


def refused(path, net=None) -> str:
    net = net or mlp()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    with pytest.raises(CheckpointError) as info:
        load_weights(net, path)
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())  # no partial load
    text = str(info.value)
    assert str(path) in text and "\n" not in text
    return text


def test_missing_file(tmp_path):
    assert "not found" in refused(tmp_path / "none.safetensors")


def test_damaged_safetensors(tmp_path):
    path = tmp_path / "x.safetensors"
    save_weights(path, mlp(), {})
    whole = path.read_bytes()
    for cut in (4, 20, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        assert "damaged" in refused(path)
    path.write_bytes(b"")
    assert "empty" in refused(path)
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    assert "damaged" in refused(path)


def test_damaged_torch_file(tmp_path):
    path = tmp_path / "x.pt"
    torch.save(mlp().state_dict(), path)
    path.write_bytes(path.read_bytes()[:-100])
    assert "damaged" in refused(path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_other_kinds_of_file(tmp_path):
    path = tmp_path / "x.bin"
    path.write_bytes(b"<html>not found</html>" * 10)
    assert "neither" in refused(path)
    torch.save([1, 2], tmp_path / "list.pt")
    assert "without a state dict" in refused(tmp_path / "list.pt")
    torch.save(mlp(), tmp_path / "module.pt")
    assert "run code" in refused(tmp_path / "module.pt")
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps(os.getcwd))
    refused(tmp_path / "evil.pkl")


def test_a_foreign_checkpoint_is_reported_by_its_names(tmp_path):
    path = tmp_path / "x.safetensors"
    save_weights(path, mlp((6, 5)), {})
    text = refused(path)
    assert "2 of its names are unexpected (such as 'layers.1.bias')" in text and "missing" not in text
    save_weights(path, mlp((6,)), {})
    assert "2 of its names are missing" in refused(path, mlp((6, 5)))


def test_another_number_of_classes_is_reported_in_classes(tmp_path):
    path = tmp_path / "x.safetensors"
    save_weights(path, mlp(classes=10), {})
    text = refused(path, mlp(classes=100))
    assert "the checkpoint has 10 classes, the network 100" in text and "fc.weight" in text


def test_another_width_is_reported_by_layer_and_both_shapes(tmp_path):
    path = tmp_path / "x.safetensors"
    save_weights(path, mlp((8,)), {})
    text = refused(path)
    assert "layers.0.weight" in text and "(8, 3)" in text and "(6, 3)" in text and "classes" not in text


def test_shared_prefixes_of_safetensors_are_left_out(tmp_path):
    from safetensors.torch import save_file

    a, b = mlp(), mlp(seed=1)
    save_file({f"net.module.{k}": v for k, v in a.state_dict().items()}, tmp_path / "x.safetensors")
    load_weights(b, tmp_path / "x.safetensors")
    assert same(a, b)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.99])
def test_a_legacy_file_cut_short_is_named(tmp_path, share):
    path = tmp_path / "x.pt"
    torch.save(mlp().state_dict(), path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size) + 3])
    refused(path)


@pytest.mark.parametrize("start", [b"\x80", b"PK"], ids=["as a pickle's", "as a zip archive's"])
def test_a_header_whose_length_begins_as_another_kind_of_file_is_read(tmp_path, start: bytes):
    net, path = nn.Linear(3, 2), tmp_path / "weights.safetensors"
    save_weights(path, net, {"note": ""})
    least = int.from_bytes(path.read_bytes()[:8], "little")
    modulus = 256 ** len(start)
    longer = (int.from_bytes(start, "little") - least) % modulus
    save_weights(path, net, {"note": "x" * longer})
    assert path.read_bytes().startswith(start)
    other = nn.Linear(3, 2)
    check_weights(other, path)
    assert load_weights(other, path) == {"note": "x" * longer}
    assert torch.equal(other.weight, net.weight)
