"""A result is used again only for the data and the code that it was made from."""

import importlib
import json
import os
import shutil
import sys
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from PIL import Image

from kdx.config.compose import compose
from kdx.config.schema import RunConfig, run_config
from kdx.core.errors import UserError
from kdx.pool.pool import run_all
from kdx.runs.folder import SOURCES
from kdx.runs.fused import FusedRuns
from kdx.runs.prepare import prepare
from kdx.runs.reuse import files
from kdx.runs.run import in_steps, run

DATA = ("dataset=imagefolder", "dataset.folder=tiny", "dataset.num_classes=2", "dataset.resize=8")
SHORT = ("trainer.duration.epochs=null", "trainer.duration.steps=2")
FAST = (*SHORT, "teacher.recipe=['trainer.batch_size=8'," + ",".join(f"'{o}'" for o in SHORT) + "]")


def folder(root, seed: int = 0):
    """Two classes of eight training images and two test images."""
    rng = np.random.default_rng(seed)
    for part, count in (("train", 8), ("val", 2)):
        for name in ("ant", "bee"):
            place = root / "tiny" / part / name
            place.mkdir(parents=True)
            for i in range(count):
                Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(place / f"{i}.bmp")
    return root


@cache
def prepared(*overrides: str) -> str:
    """The config of a tiny run, under a place that `made` replaces, as JSON."""
    from conftest import SOMEWHERE, STUDENT, TINY

    own = [o for o in TINY if "_size" not in o and "train_subset" not in o]
    place = [f"paths.data={SOMEWHERE}/data", f"paths.outputs={SOMEWHERE}/outputs"]
    return json.dumps(prepare(compose([*own, *STUDENT, *FAST, *place, *overrides])).plain())


@pytest.fixture
def made(tmp_path):
    """Makes configs of runs on the folder: `made("method=kd", seed=1)`."""
    from conftest import SOMEWHERE

    folder(tmp_path / "data")

    def config(*overrides: str, **changes) -> RunConfig:
        found = json.loads(prepared(*DATA, *(overrides or ("method=supervised",))).replace(SOMEWHERE, str(tmp_path)))
        return run_config({**found, "data_seed": changes.get("seed", 0), **changes})

    return config


def edit(root, *names: str) -> None:
    """Change pixels of images, by default of one; name and size stay."""
    for name in names or ("3.bmp",):
        path = root / "tiny" / "train" / "bee" / name
        pixels = bytearray(path.read_bytes())
        pixels[-1] ^= 1
        path.write_bytes(pixels)


CHANGED = r"was trained on other data or code: dataset: files in train/bee were changed; fresh=true .* reuse=true"


def test_a_finished_result_is_announced(made, capfd):
    first = run(made())
    assert "finished" not in capfd.readouterr().err
    assert run(made()).data == first.data
    said = capfd.readouterr().err.splitlines()
    assert len(said) == 1 and said[0].startswith(f"kdx: finished {first.data['finished']} by ")
    assert said[0].endswith(f": {first.folder}")


def test_a_changed_image_is_refused_until_one_decides(made, tmp_path, capfd):
    first = run(made())
    weights = (first.folder / "student.safetensors").read_bytes()
    edit(tmp_path / "data", *(f"{i}.bmp" for i in range(8)))  # so that the two batches hold some of them
    with pytest.raises(UserError, match=CHANGED) as error:
        run(made())
    assert len(str(error.value).replace(str(tmp_path), "")) < 300 and "\n" not in str(error.value)
    assert run(made(reuse=True)).data["finished"] == first.data["finished"]
    assert "reuse=true, although dataset: files in train/bee were changed" in capfd.readouterr().err
    with pytest.raises(UserError, match=CHANGED):  # a decision is for one command
        run(made())
    again = run(made(fresh=True))
    assert (again.folder / "student.safetensors").read_bytes() != weights
    assert run(made()).data == again.data


def test_another_folder_of_the_same_name_is_refused_and_a_copy_is_not(made, tmp_path):
    first = run(made())
    shutil.copytree(tmp_path / "data", tmp_path / "copy")  # with other times
    config = made()
    assert run(replace(config, dataset=config.dataset | {"root": str(tmp_path / "copy")})).data == first.data
    folder(tmp_path / "other", seed=1)
    with pytest.raises(UserError, match="was trained on other data or code: dataset"):
        run(replace(config, dataset=config.dataset | {"root": str(tmp_path / "other")}))


def test_data_that_are_gone_do_not_hide_a_result(made, tmp_path, capfd):
    first = run(made())
    shutil.rmtree(tmp_path / "data")
    assert run(made()).data == first.data
    assert "; not compared, since its files are not here: dataset" in capfd.readouterr().err


def test_a_result_of_an_older_version_is_used_and_that_is_reported(made, capfd):
    first = run(made())
    (first.folder / SOURCES).unlink()
    assert run(made()).data == first.data
    assert "; no record of its data and code, so they were not compared" in capfd.readouterr().err


def test_an_unfinished_run_continues_on_its_own_data_alone(made, tmp_path, capfd):
    config = made()
    steps = in_steps(replace(config, trainer={**config.trainer, "checkpoint_seconds": 0}), FusedRuns())
    for _ in range(2):
        next(steps)
    steps.close()
    edit(tmp_path / "data")
    with pytest.raises(UserError, match="was started on other data or code: dataset: files in train/bee"):
        run(made())
    result = run(made(reuse=True))
    assert "continues; reuse=true, although" in capfd.readouterr().err
    (past,) = json.loads((result.folder / SOURCES).read_text())["earlier"]
    assert past["change"] == "dataset: files in train/bee were changed"


def test_a_teacher_trained_on_other_data_is_refused_or_trained_again(made, tmp_path, capfd):
    chain = ("method=kd", "teacher.checkpoint=auto")
    first = run(made(*chain))
    edit(tmp_path / "data")
    with pytest.raises(UserError, match=r"outputs/teachers/\S* was trained on other data or code: dataset: files in"):
        run(made(*chain, seed=1))
    kept = run(made(*chain, seed=1, reuse=True))
    assert kept.data["teacher"]["sha256"] == first.data["teacher"]["sha256"]
    again = run(made(*chain, seed=1, fresh=True))
    assert again.data["teacher"]["sha256"] != first.data["teacher"]["sha256"]
    assert "again, since its data or code changed" in capfd.readouterr().err
    # unchanged data: the teacher is used again
    last = run(made(*chain, seed=1, fresh=True))
    assert last.data["teacher"]["sha256"] == again.data["teacher"]["sha256"]


def test_runs_of_a_pool_follow_the_same_check(made, tmp_path, capfd):
    chain = ("method=kd", "teacher.checkpoint=auto")
    configs = {f"seed {seed}": made(*chain, seed=seed) for seed in (0, 1)}
    results, failures = run_all(configs, 1, None, 1)
    assert len(results) == 2 and not failures
    capfd.readouterr()
    assert run_all(configs, 1, None, 2)[0].keys() == configs.keys()
    assert capfd.readouterr().err.count("kdx: finished ") == 2
    edit(tmp_path / "data")
    results, failures = run_all(configs, 1, None, 2)
    assert not results and all("was trained on other data or code" in failure.error for failure in failures)
    fresh = {f"seed {seed}": made(*chain, seed=seed, fresh=True) for seed in (0, 1)}
    renewed, failures = run_all(fresh, 1, None, 2)
    assert not failures and {r.data["teacher"]["sha256"] for r in renewed.values()} != {None}
    assert run_all(configs, 1, None, 2)[0].keys() == configs.keys()


def test_a_memo_of_other_data_is_left_alone(made, tmp_path, capfd):
    settings = ("method=kd", "teacher.checkpoint=null", "teacher.memo=true", "augmentation=none")
    settings += ("trainer.batch_size=16", "trainer.duration.steps=1")
    tables = [run(made(*settings)).data["teacher"]["memo"]["table"]]
    tables.append(run(made(*settings, seed=1)).data["teacher"]["memo"]["table"])
    edit(tmp_path / "data")
    tables.append(run(made(*settings, seed=2)).data["teacher"]["memo"]["table"])
    tables.append(run(made(*settings, seed=3)).data["teacher"]["memo"]["table"])
    assert tables[0] == tables[1] and tables[2] == tables[3] == f"{tables[0]}-1"
    assert "holds outputs for other data or code (dataset: files in train/bee were changed)" in capfd.readouterr().err


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A user's package: `sets.py` makes a data set and takes a number from `size.py`."""
    home = tmp_path / "code" / "mine_for_reuse"
    home.mkdir(parents=True)
    (home / "size.py").write_text("SIZE = 20\n")
    (home / "unrelated.py").write_text("x = 1\n")
    (home / "sets.py").write_text(
        "import torch\nfrom .size import SIZE\n\n"
        "def pairs(path=None):\n"
        "    g = torch.Generator().manual_seed(0)\n"
        "    return torch.utils.data.TensorDataset(torch.rand(SIZE, 3, 8, 8, generator=g), torch.arange(SIZE) % 2)\n"
    )
    monkeypatch.syspath_prepend(str(home.parent))
    importlib.invalidate_caches()
    yield home
    for name in [name for name in sys.modules if name.startswith("mine_for_reuse")]:
        del sys.modules[name]


OWN = ("dataset=own", "dataset.name=mine", "dataset.num_classes=2", "dataset.mean=[0,0,0]", "dataset.std=[1,1,1]")
SETS = [f"++dataset.{part}={{_target_: mine_for_reuse.sets.pairs, path: none}}" for part in ("train", "test")]


def owned(tmp_path, path: str = "none") -> RunConfig:
    """The config of a run on the user's data set."""
    from conftest import SOMEWHERE

    config = json.loads(prepared(*OWN, *SETS, "method=supervised").replace(SOMEWHERE, str(tmp_path)))
    config["dataset"]["train"]["path"] = path
    return run_config(config)


def test_an_edited_module_is_refused_with_its_name(module, tmp_path):
    first = run(owned(tmp_path))
    assert json.loads((first.folder / SOURCES).read_text())["modules"].keys() == {
        "mine_for_reuse.sets",
        "mine_for_reuse.size",
    }
    (module / "unrelated.py").write_text("x = 2\n")
    assert run(owned(tmp_path)).data == first.data
    (module / "size.py").write_text("SIZE = 22\n")
    with pytest.raises(UserError, match=r"other data or code: the module mine_for_reuse\.size was edited; fresh=true"):
        run(owned(tmp_path))


def test_a_file_behind_a_value_is_compared_and_its_folder_is_no_part_of_the_identity(module, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        torch.save(torch.zeros(1), tmp_path / name / "weights.pt")
    first = run(owned(tmp_path, f"{tmp_path}/a/weights.pt"))
    assert run(owned(tmp_path, f"{tmp_path}/b/weights.pt")).folder == first.folder
    torch.save(torch.ones(1), tmp_path / "b" / "weights.pt")
    with pytest.raises(UserError, match=r"other data or code: dataset\.train\.path: "):
        run(owned(tmp_path, f"{tmp_path}/b/weights.pt"))


@pytest.fixture
def large(monkeypatch):
    monkeypatch.setattr(files, "EXACT_BYTES", 0)


def listing(root) -> dict:
    return files.fingerprint({str(root): [os.path.join(w, n) for w, _, names in os.walk(root) for n in names]})


def test_of_large_data_a_copy_is_the_same_and_a_change_is_not(tmp_path, large):
    root = folder(tmp_path / "data")
    before = listing(root)
    assert not before["exact"] and files.change(before, listing(root)) is None
    shutil.copytree(root, tmp_path / "copy")
    for path in (tmp_path / "copy").rglob("*.bmp"):
        os.utime(path, ns=(1, 1_700_000_000_000_000_000))
    assert files.change(before, listing(tmp_path / "copy")) is None
    edit(root)
    assert files.change(before, listing(root)) == "files in tiny/train/bee were changed"
    edit(tmp_path / "copy")
    assert (
        files.change(before, listing(tmp_path / "copy")) == "files in tiny/train/ant were changed, and 3 more folders"
    )


@pytest.mark.parametrize("exact", [True, False])
def test_every_change_of_names_and_sizes_is_reported(tmp_path, monkeypatch, exact):
    if not exact:
        monkeypatch.setattr(files, "EXACT_BYTES", 0)
    root = folder(tmp_path / "data")
    before = listing(root)
    place = root / "tiny" / "train" / "ant"
    shutil.copy(place / "0.bmp", place / "new.bmp")
    assert files.change(before, listing(root)) == "9 files in tiny/train/ant, 8 before"
    (place / "new.bmp").unlink()
    os.rename(place / "0.bmp", place / "00.bmp")
    assert files.change(before, listing(root)) == "other names or sizes of files in tiny/train/ant"
    os.rename(place / "00.bmp", place / "0.bmp")
    with open(place / "0.bmp", "ab") as file:
        file.write(b"!")
    assert "bytes of files in tiny/train/ant" in str(files.change(before, listing(root)))
    shutil.rmtree(place)
    assert files.change(before, listing(root)) == "the folder tiny/train/ant is gone"


def test_few_of_many_files_are_read(tmp_path, monkeypatch):
    for c in range(5):
        (tmp_path / str(c)).mkdir()
        for i in range(300):
            (tmp_path / str(c) / f"{i}.png").write_bytes(b"1234")
    paths = {str(tmp_path): [os.path.join(w, n) for w, _, names in os.walk(tmp_path) for n in names]}
    opened, stated, calls = os.open, os.stat, {"open": 0, "stat": 0}

    def counted(name, call):
        def count(*given, **named):
            calls[name] += 1
            return call(*given, **named)

        return count

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", counted("open", opened))
        patch.setattr(os, "stat", counted("stat", stated))
        facts = files.fingerprint(paths)
    assert sum(count for count, *_ in facts["folders"].values()) == 1500 and not facts["exact"]
    assert 0 < calls["open"] <= files.SAMPLED and calls["stat"] == 1500
