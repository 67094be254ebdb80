"""`kdx train` from the command line: every mistake told before anything loads, sweeps, failed runs."""

import json
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest
from door import SMALL, command, folders

from kdx.data.dataset import Dataset
from kdx.models.weights import save_weights
from kdx.runs.build import make

NOTHING = "nothing may be loaded"


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KDX_DATA", raising=False)
    return tmp_path


@pytest.fixture
def untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    """No data set and no weights file may be opened."""

    def load(*_: object) -> None:
        raise AssertionError(NOTHING)

    monkeypatch.setattr(Dataset, "splits", load)
    for module in ("kdx.runs.build", "kdx.models.weights"):
        monkeypatch.setattr(f"{module}.load_weights", load)


@pytest.fixture
def teacher(elsewhere: Path) -> str:
    """An override that gives a random teacher to the pair of `SMALL`."""
    net = {"_target_": "kdx.models.small.MLP", "hidden": [8, 8], "dropout": 0.0, "activation": "relu"}
    path = elsewhere / "teacher.safetensors"
    save_weights(path, make({**net, "num_classes": 4, "input_shape": [1, 8, 8]}), {})
    return f"teacher.checkpoint={path}"


# overrides, and the line for each mistake in them
MISTAKES = {
    "several at once, of every kind": (
        ["student=mlp_3", "method.temperatur=2", "dataset.fraction=1.5", "seed=abc", "trainer.precision=fp17"],
        [
            "unknown student 'mlp_3'; did you mean 'mlp_30'?",
            "unknown key 'method.temperatur'; did you mean 'method.temperature'?",
            "dataset.fraction: must be at most 1, found 1.5",
            "seed: must be a whole number, found 'abc'",
            "trainer.precision: must be 'fp32' or 'bf16', found 'fp17'",
        ],
    ),
    "keys that do not exist": (
        ["typo=1", "lr=1", "optimizer.lrr=1", "optimizr.lr=1", "student.depth=3", "model=resnet20", "~nope"],
        [
            r"unknown key 'typo'; known: .*\bdataset\b.*",
            "unknown key 'lr'; did you mean 'optimizer.lr'?",
            "unknown key 'optimizer.lrr'; did you mean 'optimizer.lr'?",
            "unknown key 'optimizr.lr'; did you mean 'optimizer.lr'?",
            "unknown key 'student.depth'; student has: checkpoint, checkpoint_share, sha256, experiment, net",
            "unknown key 'model'; a network is chosen with student=NAME and teacher=NAME",
            "unknown key 'nope'.*",
        ],
    ),
    "keys that Hydra would add": (
        ["+typo=1", "+student.typo=1", "+method.terms.kd.typo=1", "+evals.test.typo=1", "+trainer.duration.typo=1"],
        [
            "unknown key 'typo'; known: .*",
            "unknown key 'student.typo'; known: .*",
            "unknown key 'method.terms.kd.typo'; known: reduction, temperature",
            "unknown key 'evals.test.typo'; known: every, model, split",
            "unknown key 'trainer.duration.typo'; known: epochs, examples, steps",
        ],
    ),
    "a close word for a key that is added": (
        ["+method.temperatures=1", "+paths.outputz=x"],
        [
            "unknown key 'method.temperatures'; did you mean 'temperature'?",
            "unknown key 'paths.outputz'; did you mean 'outputs'?",
        ],
    ),
    "values out of their range": (
        "method.temperature=-1 dataset.fraction=0 dataset.val_fraction=1 optimizer.lr=0 seed=-1 evals.test.every=0 "
        "trainer.duration.epochs=0 trainer.duration.steps=null trainer.threads=0 method.weights.kd=-1",
        [
            "method.temperature: must be greater than 0 or null, found -1",
            "dataset.fraction: must be greater than 0, found 0",
            "dataset.val_fraction: must be less than 1, found 1",
            "optimizer.lr: must be greater than 0, found 0",
            "seed: must be at least 0, found -1",
            "trainer.duration.epochs: must be greater than 0 or null, found 0",
            "trainer.threads: must be greater than 0 or null, found 0",
            "method.weights.kd: must be at least 0, found -1",
            "evals.test.every: must be greater than 0 or null, found 0",
        ],
    ),
    "values of another type": (
        "method.weights=0.5 fresh=maybe paths.outputs=5 student.net.hidden=5 teacher.net.hidden=[5,a] "
        "data_seed=null dataset.val_fraction=50% evals.test=null teacher.seed=1.5",
        [
            "method.weights: must be keys with values, found 0.5",
            "fresh: must be true or false, found 'maybe'",
            "paths.outputs: must be text, found 5",
            "student.net.hidden: must be a list, found 5",
            r"teacher.net.hidden\[1\]: must be a whole number, found 'a'",
            "data_seed: must be a whole number, found null",
            "dataset.val_fraction: must be a number, found '50%'",
            "evals.test: must be a node with a _target_, found null",
            "teacher.seed: must be a whole number, found 1.5",
        ],
    ),
    "closed choices": (
        ["method.terms.kd.reduction=foo", "logger.mode=foo"],
        [
            "method.terms.kd.reduction: must be 'batchmean' or 'mean', found 'foo'",
            "logger.mode: must be 'offline', 'online' or 'disabled', found 'foo'",
        ],
    ),
    "targets": (
        ["method._target_=kdx.methods.distill.Distil", "optimizer._target_=kdx.nope.X", "schedule._target_=foo"],
        [
            "method._target_: the module 'kdx.methods.distill' has no 'Distil'; did you mean 'Distill'?",
            "optimizer._target_: there is no module 'kdx.nope'",
            "schedule._target_: must be the full name of a class or function, .*",
        ],
    ),
    "a target that does not bind": (
        ["method.terms.kd={_target_: kdx.losses.logits.kd.KD, reduction: mean, temprature: 1}"],
        ["unknown key 'method.terms.kd.temprature'; did you mean 'method.terms.kd.temperature'?"],
    ),
    "a key that is missing": (["~optimizer.lr", "~logger"], ["missing key 'logger'", "missing key 'optimizer.lr'"]),
    "values that are asked for": (
        ["student=timm", "teacher=torchvision", "optimizer=timm"],
        [f"{path} has no value yet; give one: {path}=VALUE" for path in ("student.net.name", "teacher.net.name")]
        + ["optimizer.name has no value yet; give one: optimizer.name=VALUE"],
    ),
    "options": (
        ["dataset=cifar1000", "logger=nope", "debug=fats", "experiment=crd/nope"],
        [
            "unknown dataset 'cifar1000'; did you mean 'cifar100'?",
            "unknown logger 'nope'; did you mean 'none'?",
            "unknown debug 'fats'; did you mean 'fast'?",
            "unknown experiment 'crd/nope'; known: .*crd/resnet56_resnet20_kd.*",
        ],
    ),
    "no option at all": (["method=null"], ["method takes one of its options: .*kd.*"]),
    "an empty option": (["dataset="], ["dataset takes one of its options: .*digits.*"]),
    "a network's name in place of the network": (
        ["teacher.net=resnet20"],
        ["teacher.net: must be a node with a _target_, found 'resnet20'; a network is chosen with teacher=resnet20"],
    ),
    "two units": (
        ["trainer.duration.epochs=10"],
        [
            "trainer.duration: exactly one of epochs, steps, examples is needed, found epochs=10 and steps=1500; "
            "add trainer.duration.epochs=null or trainer.duration.steps=null"
        ],
    ),
    "no unit": (
        ["trainer.duration.steps=null"],
        ["trainer.duration: exactly one of epochs, steps, examples is needed, found none; .*"],
    ),
    "a weight without a term": (
        ["+method.weights.foo=1"],
        ["terms and weights must have the same names; on one side only: foo"],
    ),
    "a role that is not there": (
        ["method=fitnet", "method.terms.hint.student_role=stage9"],
        [
            "the term 'hint' cannot be built for this pair: the student has no feature with role 'stage9'; "
            "it has: .*stage1.*"
        ],
    ),
    "a teacher with other classes": (
        ["teacher.net.num_classes=7"],
        ["teacher.net.num_classes must be 10 for dataset=digits, found 7"],
    ),
    "an evaluator of what is not there": (
        ["evals.test.model=peer", "evals.fidelity.split=tset"],
        [
            "evals.test.model: this method has no network 'peer'; it has: student, teacher",
            "evals.fidelity: there is no split 'tset'; this data set has: test, train",
        ],
    ),
    "an evaluator of a split that is not cut": (
        ["evals.fidelity.split=val"],
        ["evals.fidelity.split: there is no validation split; dataset.val_fraction=0.1 cuts one"],
    ),
    "a checkpoint that is not there, and a typo": (
        ["teacher.checkpoint=nope.pt", "student.checkpoint=.", "+method.typo=1"],
        [
            "teacher.checkpoint=nope.pt: no such file or directory",
            "student.checkpoint=.: this directory has no student.safetensors; is the run finished?",
            "unknown key 'method.typo'; known: temperature, terms, weights",
        ],
    ),
    "a data set that is not there, and a typo": (
        ["dataset=cifar100", "paths.data=/nowhere", "method.temperatur=1"],
        ["unknown key 'method.temperatur'; did you mean 'method.temperature'?"],
    ),
    "a device that is not there": (["trainer.device=cuda:99"], ["trainer.device=cuda:99: this machine has . GPUs"]),
    "no device": (["trainer.device=gpu"], ["trainer.device=gpu is no device; use auto, cpu, cuda or cuda:N"]),
    "half of the teacher's statistics": (
        ["teacher.mean=[0.5]"],
        ["teacher.mean and teacher.std must be given together"],
    ),
    "the teacher's own recipe: keys": (
        ["teacher.recipe=['optimizer.lrr=1','trainr.x=1']"],
        [
            "teacher.recipe: unknown key 'optimizer.lrr'; did you mean 'optimizer.lr'?",
            "teacher.recipe: unknown key 'trainr.x'; did you mean 'trainer'?",
        ],
    ),
    "the teacher's own recipe: values": (
        ["teacher.recipe=['optimizer.lr=-1']"],
        ["teacher.recipe: optimizer.lr: must be greater than 0, found -1"],
    ),
    "a recipe without quotes": (
        ["teacher.recipe=[optimizer.lr=1]"],
        [
            r"cannot read 'teacher.recipe=\[optimizer.lr=1\]'; a value with an equals sign needs quotes inside quotes: "
            r"'teacher.recipe=\[\"optimizer.lr=1\"\]'"
        ],
    ),
    "a recipe of two without quotes": (
        ["teacher.recipe=[method=kd, teacher=resnet20]"],
        [r".* needs quotes inside quotes: 'teacher.recipe=\[\"method=kd\",\"teacher=resnet20\"\]'"],
    ),
    "a recipe of a teacher that is not trained": (
        ["teacher.recipe=['optimizer.lr=1']", "teacher.checkpoint=null"],
        [
            "teacher.recipe configures the training of a teacher, but checkpoint=null trains none; leave one of "
            "the two out"
        ],
    ),
    "an interpolation to nowhere": (
        ["method.temperature=${nope}"],
        ["'method.temperature' refers to 'nope', which does not exist in this config"],
    ),
    "words that are no settings": (
        ["foo", "method.temperature=[1"],
        [
            "cannot read 'foo'; a setting is written key=value",
            r"cannot read 'method.temperature=\[1'; .*quotes",
        ],
    ),
    "spaces around the sign": (["seed", "=", "1"], ["cannot read 'seed = 1'; write it without spaces: seed=1"]),
    "a setting with dashes": (["--seed", "1"], ["unknown option '--seed'; a setting has no dashes: seed=1"]),
    "an option that does not exist": (["-x"], ["unknown option '-x'; see kdx train --help"]),
    "a sweep without -m": (
        ["seed=0,1"],
        [r"'seed=0,1' gives several values: a sweep needs -m, a list is written seed=\[a,b\]"],
    ),
    "a sweep with one wrong value": (
        ["-m", "method=kd,dkd", "dataset.fraction=0.1,0.3,1.5", "seed=0,1"],
        ["dataset.fraction: must be at most 1, found 1.5"],
    ),
    "a sweep with wrong values on several axes": (
        ["-m", "method=kd,kdd", "seed=0,-1", "method.tmp=1"],
        [
            "unknown method 'kdd'; did you mean 'kd'?",
            "seed: must be at least 0, found -1",
            "unknown key 'method.tmp'; method has: temperature, terms, weights",
        ],
    ),
    "a sweep over nothing": (["-m", "method=glob(x*)"], [r"method=glob\(x\*\) matches no option; method has: .*"]),
    "a sweep over an interval": (
        ["-m", "dataset.fraction=interval(0.1,0.3)"],
        [r"dataset.fraction=interval\(0.1,0.3\) needs a sweeper that searches; .*"],
    ),
}


@pytest.mark.parametrize(("arguments", "lines"), MISTAKES.values(), ids=MISTAKES)
def test_each_mistake_is_reported_once_before_anything_loads(capsys, elsewhere, untouched, arguments, lines):
    said = command(capsys, "train", *(arguments.split() if isinstance(arguments, str) else arguments))
    assert said.code == 2
    unmatched = list(said.err)
    for line in lines:
        exact = f"kdx: {line}"
        found = [e for e in unmatched if e == exact] or [e for e in unmatched if re.fullmatch(exact, e)]
        assert len(found) == 1, (line, said.err)
        unmatched.remove(found[0])
    assert unmatched == []
    assert not said.out
    assert not list(elsewhere.iterdir())


def failed(capsys, place: Path, *arguments: str) -> str:
    """The one line of a run that fails, which leaves its traceback and nothing half-written."""
    said = command(capsys, "train", *SMALL, *arguments)
    assert said.code == 1
    assert len(said.err) == 1, said.err
    (folder,) = folders(place)
    left = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert left <= {".lock", "config.yaml", "error.txt", "sources.json"}
    assert "Traceback" in (folder / "error.txt").read_text()
    return said.err[0].removeprefix("kdx: ")


def refused(capsys, place: Path, *arguments: str) -> str:
    """The one line of a run that ends before it has a folder."""
    said = command(capsys, "train", *SMALL, *arguments)
    assert said.code == 1 and len(said.err) == 1, said.err
    assert list(folders(place)) == []
    return said.err[0].removeprefix("kdx: ")


def test_data_that_is_not_there(capsys, elsewhere):
    said = command(
        capsys, "train", "dataset=cifar100", "method=supervised", "student=resnet8", "debug=fast", "paths.data=/nowhere"
    )
    assert said.code == 1
    assert said.err == [
        "kdx: cifar100 not found: looked for /nowhere/cifar-100-python; set dataset.download=true to fetch it, "
        "or point KDX_DATA (paths.data) at the folder"
    ]


def test_a_damaged_data_file(capsys, elsewhere):
    folder = elsewhere / "data" / "cifar-100-python"
    folder.mkdir(parents=True)
    (folder / "train").write_bytes(pickle.dumps({"data": 1})[:-3])
    said = command(
        capsys, "train", "dataset=cifar100", "method=supervised", "student=resnet8", "debug=fast", "paths.data=data"
    )
    assert said.code == 1
    assert len(said.err) == 1
    assert re.match(r"kdx: data/cifar-100-python/train is damaged: ", said.err[0])


def test_a_damaged_checkpoint(capsys, elsewhere, teacher):
    path = elsewhere / "teacher.safetensors"
    path.write_bytes(path.read_bytes()[:-9])
    assert re.match(r".*teacher.safetensors is damaged or cut short: .*", refused(capsys, elsewhere, teacher))


def test_a_checkpoint_of_another_network(capsys, elsewhere, teacher):
    line = refused(capsys, elsewhere, teacher, "teacher.net.hidden=[9,9]")
    assert re.match(
        r".*teacher.safetensors does not fit: '.*' is \(8, 64\) in the file and \(9, 64\) in the network", line
    )


def test_a_file_that_holds_no_weights(capsys, elsewhere):
    (elsewhere / "notes.txt").write_text("not weights at all")
    line = refused(capsys, elsewhere, "teacher.checkpoint=notes.txt")
    assert re.match(r"notes.txt is neither a safetensors file nor one that torch saved", line)


def test_a_teacher_that_misses_its_gate(capsys, elsewhere, teacher):
    line = failed(capsys, elsewhere, teacher, "teacher.expected=1", "teacher.tolerance=0")
    assert re.match(r"the teacher .* reaches a test top-1 of 0\.\d+, but teacher.expected is 1", line)


def test_a_bug_names_its_kind_and_where_the_traceback_is(capsys, elsewhere, teacher, monkeypatch):
    def broken(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("kdx.engine.trainer.Trainer.steps", broken)
    said = command(capsys, "train", *SMALL, teacher)
    assert said.code == 1
    assert said.err == ["kdx: RuntimeError: a bug; the traceback is in error.txt in the run's directory"]


def test_a_run_says_its_result_and_the_same_command_returns_it(capsys, elsewhere, teacher, monkeypatch):
    first = command(capsys, "train", *SMALL, teacher)
    assert (first.code, first.err) == (0, [])
    (folder,) = folders(elsewhere)
    for text in ("top-1 %", "agreement %", "protocol: last epoch", "teacher mlp_30", folder.name):
        assert text in first.out
    monkeypatch.setattr(Dataset, "splits", None)  # a finished run loads nothing
    assert command(capsys, "train", *SMALL, teacher).out == first.out


def test_a_sweep_is_the_product_of_its_values(capsys, elsewhere, teacher):
    said = command(capsys, "train", "-m", *SMALL, teacher, "method=kd,dkd", "seed=range(2)")
    assert (said.code, said.err) == (0, [])
    runs = [json.loads((f / "result.json").read_text()) for f in folders(elsewhere)]
    assert sorted((r["choices"]["method"], r["seed"]) for r in runs) == [("dkd", 0), ("dkd", 1), ("kd", 0), ("kd", 1)]
    assert all((f / "DONE").exists() for f in folders(elsewhere))


def test_a_sweep_over_fractions(capsys, elsewhere, teacher):
    said = command(capsys, "train", "-m", *SMALL, teacher, "dataset.fraction=0.5,1")
    assert (said.code, said.err) == (0, [])
    runs = [json.loads((f / "result.json").read_text()) for f in folders(elsewhere)]
    assert sorted(r["examples"]["training"] for r in runs) == [10, 20]


def test_a_sweep_over_a_glob_of_a_group(capsys, elsewhere, teacher):
    said = command(capsys, "train", "-m", *SMALL, teacher, "augmentation=glob([n*,s*],exclude=st*)")
    assert (said.code, said.err) == (0, [])
    runs = [json.loads((f / "result.json").read_text()) for f in folders(elsewhere)]
    assert sorted(r["choices"]["augmentation"] for r in runs) == ["none", "shift"]


def test_a_failed_run_of_a_sweep_is_one_line_with_its_directory(capsys, elsewhere):
    said = command(capsys, "train", "-m", *SMALL, "logger=none", "method=supervised", "optimizer.lr=1e30", "seed=3")
    (folder,) = (error.parent for error in elsewhere.glob("outputs/runs/*/error.txt"))
    assert said.code == 1 and len(said.err) == 1
    assert "seed=3" in said.err[0] and "the term 'ce'" in said.err[0]
    assert said.err[0].endswith(f" ({folder.relative_to(elsewhere)})")


def test_a_member_that_fails_leaves_the_others_running(capsys, elsewhere, teacher):
    said = command(capsys, "train", "-m", *SMALL, teacher, "method=at,kd")
    assert said.code == 1
    assert len(said.err) == 1
    assert (
        "method=at" in said.err[0]
        and "the term 'at' cannot be built for this pair: AT reads feature maps" in said.err[0]
    )
    assert [(f / "DONE").exists() for f in folders(elsewhere)] == [True]


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ("hydra/launcher=jobli", "kdx: unknown hydra/launcher 'jobli'; did you mean 'joblib'?"),
        ("hydra/sweeper=grid", "kdx: unknown hydra/sweeper 'grid'; known: basic, optuna"),
        ("hydra.sweeper.max_batch_sise=1", "kdx: unknown key 'hydra.sweeper.max_batch_sise'; did you mean"),
        ("hydra.sweepr=1", "kdx: unknown key 'hydra.sweepr'; did you mean 'hydra.sweeper'?"),
    ],
)
def test_what_hydra_does_not_know_is_one_line(capsys, elsewhere, wrong: str, line: str):
    said = command(capsys, "train", "-m", "seed=0,1", wrong)
    assert said.code == 2 and len(said.err) == 1 and said.err[0].startswith(line)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--cfg", "job"), "temperature: ${...temperature}"),
        (("--cfg", "job", "--resolve", "method.temperature=3"), "temperature: 3"),
        (("-c", "hydra"), "mode:"),
        (("--info", "defaults"), "Defaults List"),
    ],
)
def test_hydra_still_answers(capsys, elsewhere, arguments, text):
    said = command(capsys, "train", *arguments)
    assert said.code == 0
    assert text in said.out
    assert not (elsewhere / "outputs").exists()


@pytest.mark.slow  # Hydra copies every option for every group
def test_help_shows_the_networks_for_both_roles(capsys):
    said = command(capsys, "train", "--help")
    assert said.code == 0
    groups = {line.split(": ")[0]: line.split(": ")[1].split(", ") for line in said.out.splitlines() if ": " in line}
    for role in ("student", "teacher"):
        assert {"resnet20", "timm", "mlp_30"} <= set(groups[role])
    assert "kdx train -m" in said.out


def test_the_module_is_the_same_door(elsewhere):
    done = subprocess.run(
        [sys.executable, "-m", "kdx.train", "method.temperatur=1"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr == "kdx: unknown key 'method.temperatur'; did you mean 'method.temperature'?\n"
