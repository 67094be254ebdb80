"""Runs from unknown sources: no command calls a function that their configs name."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from door import command
from fabricate import changed, fabricate

from kdx.config.trusted import is_part, refusals
from kdx.core.errors import UserError
from kdx.core.files import as_file_name, below
from kdx.report.collect import read
from kdx.report.recompute import recompute
from kdx.runs.run import run
from kdx.runs.use.stored import as_data

TARGETS = """
os.system os.popen os.remove os.execv os.kill subprocess.run subprocess.Popen subprocess.check_output
shutil.rmtree shutil.copyfile builtins.exec builtins.eval builtins.open builtins.__import__ builtins.print
importlib.import_module runpy.run_path runpy.run_module code.interact pty.spawn ctypes.CDLL pickle.load
pickle.loads marshal.loads joblib.load numpy.load numpy.save torch.load torch.save torch.hub.load
torch.utils.cpp_extension.load torch.jit.load pathlib.Path pathlib.Path.unlink urllib.request.urlretrieve
webbrowser.open socket.create_connection tempfile.mkdtemp yaml.unsafe_load hydra.utils.instantiate
hydra.utils.call hydra.utils.get_method omegaconf.OmegaConf.save timm.create_model
kdx.models.build.timm.create_model kdx.core.files.atomic_write kdx.runs.results.write_json kdx.runs.build.make
kdx.engine.record.log.Log kdx.engine.checkpoint.Checkpoints kdx.models.teachers.memo_table.MemoTable
kdx.models.weights.save_weights kdx.losses.logits.kd.Tensor kdx.losses.logits.kd.KD.__init__
kdx.losses.logits.kd.torch.load kdx.cli.main stranger_module.touch ..os.system os .
"""
HOSTILE = TARGETS.split()


@pytest.fixture
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module that leaves a file when it is imported or called; its mark."""
    mark = tmp_path / "mark"
    (tmp_path / "modules").mkdir()
    lines = ["from pathlib import Path", f"Path({str(mark)!r}).touch()", "def touch(*_, **__): raise SystemExit(3)"]
    (tmp_path / "modules" / "stranger_module.py").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    monkeypatch.delitem(sys.modules, "stranger_module", raising=False)
    return mark


def test_there_are_fifty_hostile_targets():
    assert len(set(HOSTILE)) >= 50


@pytest.mark.parametrize("target", HOSTILE)
def test_no_hostile_target_is_a_part(target, stranger):
    assert not is_part(target)
    node = {"_target_": target}
    for config in (
        {"student": {"net": node}},
        {"method": {"terms": [[{"deep": node}]]}},
        {"evals": {"x": {"y": node}}},
    ):
        (line,) = refusals(config)
        assert repr(target)[:40] in line and "._target_: " in line
    assert not stranger.exists()


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"dataset": {"root": "${oc.env:HOME}"}}, "dataset.root: '${oc.env:HOME}' is an interpolation"),
        ({"a": {"_target_": 5}}, "a._target_: 5 is no part"),
        ({"a": {"_args_": ["x"]}}, "a: the key '_args_' is not accepted"),
        ({"a": [{"_recursive_": False}]}, "a[0]: the key '_recursive_' is not accepted"),
    ],
)
def test_what_hydra_would_act_upon_is_refused(config, problem):
    (line,) = refusals(config)
    assert line.startswith(problem)


@pytest.mark.parametrize("method", ["kd", "dkd", "crd", "dml", "lskd", "sobolev", "pgd_at", "dafl", "adv_features"])
def test_configs_of_our_own_runs_are_accepted(tiny, method):
    assert refusals(tiny(f"method={method}").plain()) == []


def test_the_targets_of_own_config_folders_are_accepted(tmp_path, monkeypatch):
    assert not is_part("stranger_module.touch")
    (tmp_path / "method").mkdir()
    (tmp_path / "method" / "mine.yaml").write_text("_target_: stranger_module.touch\n")
    monkeypatch.setenv("KDX_CONFIGS", str(tmp_path))
    assert is_part("stranger_module.touch")


def test_no_command_builds_what_an_unknown_run_names(capsys, tmp_path, tiny, stranger):
    kd = tiny("method=kd").plain()
    for number, target in enumerate(["stranger_module.touch", "torch.hub.load", "os.system"]):
        node = {"_target_": target, "repo_or_dir": str(tmp_path), "model": "x", "source": "local", "command": "true"}
        key = ("student__net", "dataset", "logger")[number]
        old = kd["student"]["net"] if number == 0 else kd[key]
        fabricate(
            tmp_path / "runs" / f"run{number}",
            changed(kd, **{key: {**old, **node}, "seed": number}),
            {"test/top1": 0.5},
        )
    said = command(
        capsys, "report", str(tmp_path / "runs"), "predict=true", "pictures=false", f"to={tmp_path / 'page'}"
    )
    assert said.code == 0
    refused = [line for line in said.err if "is no part of kdx or of your own config folders" in line]
    assert len(refused) == 3 and all("config.yaml: " in line and len(line) < 300 for line in refused)
    for arguments in (("status", str(tmp_path)), ("compare", str(tmp_path / "runs/run0"), str(tmp_path / "runs/run1"))):
        command(capsys, *arguments)
    assert not stranger.exists() and "stranger_module" not in sys.modules


def test_a_run_of_our_own_is_computed_again(tiny):
    result = run(tiny("method=kd", "teacher.checkpoint=null"))
    kept = (result.folder / "predictions.safetensors").read_bytes()
    (result.folder / "predictions.safetensors").unlink()
    assert recompute(read(result.folder)) is None
    assert (result.folder / "predictions.safetensors").read_bytes() == kept


def test_a_computation_neither_downloads_nor_writes_elsewhere(tiny, tmp_path):
    config = tiny("method=kd")
    found = read(fabricate(tmp_path / "run", config, {"test/top1": 0.5}))
    shards = {"_target_": "kdx.data.sources.shards.Shards", "download": True, "index": "/etc"}
    found = replace(found, config={**found.config, "dataset": {**found.config["dataset"], **shards}})
    with pytest.raises(UserError, match="config.yaml: "):  # the other keys do not fit this source
        as_data(found.result.folder, found.config)


def test_aliases_in_a_config_are_refused(capsys, tmp_path, tiny):
    folder = fabricate(tmp_path / "runs" / "bomb", tiny("method=kd"), {"test/top1": 0.5})
    bomb = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
    (folder / "config.yaml").write_text((folder / "config.yaml").read_text() + "a0: &a0 [x]\n" + bomb)
    said = command(capsys, "report", str(tmp_path / "runs"))
    assert said.code == 1 and any("config.yaml is damaged: it has aliases" in line for line in said.err)


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/x", "", ".", "a//b", "a/", ".hidden", "a\nb", "a\x1b[0m"])
def test_a_name_cannot_leave_its_folder(tmp_path, name):
    with pytest.raises(UserError, match=r"^study.name="):
        below(tmp_path, name, "study.name")
    assert "/" not in as_file_name(name) and not as_file_name(name).startswith(".")
    assert as_file_name(name).isprintable()


def test_a_study_with_such_a_name_is_refused_before_it_trains(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = command(capsys, "study", "study=demo", "study.name=../../x")
    assert said.code == 2 and len(said.err) == 1 and said.err[0].startswith("kdx: study.name='../../x' must be")
    assert not list(tmp_path.iterdir())
