"""The command line as a newcomer meets it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from door import command

from kdx.cli import COMMANDS
from kdx.commands.catalogue import FIELDS, KINDS, defaults, front_matter, headline
from kdx.config.compose import compose
from kdx.config.layout import config_dir, options

KDX = Path(sys.executable).parent / "kdx"


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",), ("help",)])
def test_help_names_every_command(capsys, arguments):
    said = command(capsys, *arguments)
    assert said.code == 0
    assert not said.err
    for word in COMMANDS:
        assert f"kdx {word}" in said.out


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from kdx.cli import main; main(['--help']); "
        "heavy = {'torch', 'hydra', 'omegaconf', 'numpy', 'pydantic'} & set(sys.modules); "
        "assert not heavy, heavy; assert len(sys.modules) < 200, len(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_version(capsys):
    import kdx

    assert command(capsys, "--version").out == f"kdx {kdx.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("trian",), "kdx: unknown command 'trian'; did you mean 'train'?"),
        (("--nope",), "kdx: unknown command '--nope'; known: "),
        (("list", "nope"), "kdx: unknown kind 'nope'; known: "),
        (("list", "metods"), "kdx: unknown kind 'metods'; did you mean 'methods'?"),
        (("list",), "kdx: name a kind: kdx list methods|"),
        (("list", "methods", "models"), "kdx: name a kind: kdx list methods|"),
        (("completion", "fish"), "kdx: name a shell, bash or zsh: "),
        (("study", "--foo"), "kdx: unknown option '--foo'; see kdx study --help"),
        (("study", "foo"), "kdx: cannot read 'foo'; a setting is written key=value"),
        (("study", "study=nope"), "kdx: unknown study 'nope'; known: "),
        (("study", "study.seed=[1]"), "kdx: unknown key 'study.seed'; did you mean 'study.seeds'?"),
        (("study", "+study.typo=1"), "kdx: unknown key 'study.typo'; known: "),
        (("study", "study.protocol=foo"), "kdx: study.protocol: must be 'last', 'best_on_test' or 'val_selected'"),
        (("study", "jbs=2"), "kdx: unknown key 'jbs'; did you mean 'jobs'?"),
        (("study", "zzz=2"), "kdx: unknown key 'zzz'; known: study, paths, scale, only, "),
        (("study", "method=kd"), "kdx: unknown key 'method'; it is a key of the study's runs, not of the study: see "),
        (("study", "study.rows.KD.x=1"), "kdx: study.rows.KD.x=1: study.rows.KD is a list; set the whole list"),
        (("study", "study.seeds=[]"), "kdx: a study needs at least one seed and one row"),
        (("study", "study.baseline=foo"), "kdx: study.baseline 'foo' is not a row; rows: "),
    ],
)
def test_a_wrong_command_is_reported_in_one_line(capsys, monkeypatch, tmp_path, arguments, line):
    monkeypatch.chdir(tmp_path)
    said = command(capsys, *arguments)
    assert said.code == 2
    assert len(said.err) == 1
    assert said.err[0].startswith(line)
    assert not list(tmp_path.iterdir())


def test_study_help_names_the_studies(capsys):
    said = command(capsys, "study", "--help")
    assert said.code == 0
    assert all(name in said.out for name in options("study"))


@pytest.mark.parametrize("kind", KINDS)
def test_list_names_everything_with_a_description(capsys, kind):
    rows = command(capsys, "list", kind).out.splitlines()
    rows = rows[1:] if kind == "methods" else rows
    assert [row.split()[0] for row in rows] == options(KINDS[kind])
    for row in rows:
        name, *said = row.split(None, 1)
        assert said and len(said[0]) > 10, (
            f"configs/{KINDS[kind]}/{name}.yaml needs a comment at its top that says what it is"
        )


def test_list_knows_every_group_that_a_user_chooses_from():
    folders = {p.name for p in config_dir().iterdir() if p.is_dir()}
    # networks are the options of both roles; paths and Hydra's own settings are no choices, but its parts are
    left = folders - set(KINDS.values()) - {"student", "teacher", "paths", "hydra", "local"}
    assert not left, f"kdx list does not know {left}: add a line to KINDS in kdx/commands/catalogue.py"


def test_list_takes_the_name_of_a_group(capsys):
    assert command(capsys, "list", "dataset").out == command(capsys, "list", "datasets").out


def test_defaults_of_a_method_are_those_of_its_config():
    shown = defaults(config_dir() / "method" / "kd.yaml")
    method = compose(["method=kd"]).config["method"]
    assert shown == f"T {method['temperature']:g}, ce {method['weights']['ce']:g}, kd {method['weights']['kd']:g}"
    assert defaults(config_dir() / "method" / "dkd.yaml").endswith("dkd WarmUp")  # a schedule by its name


@pytest.mark.parametrize("kind", [k for k in KINDS if k != "methods"])
def test_descriptions_are_sentences_without_links_that_tell_things_apart(kind):
    said = [headline(config_dir() / KINDS[kind] / f"{name}.yaml") for name in options(KINDS[kind])]
    for text in said:
        assert "://" not in text and "_target_" not in text and "defaults" not in text, text
        assert not text.endswith(("et al", ":")), text
    assert len(set(said)) == len(said)


@pytest.mark.parametrize("name", options("method"))
def test_every_method_says_where_it_comes_from(name):
    facts = front_matter(config_dir() / "method" / f"{name}.yaml")
    path = f"configs/method/{name}.yaml"
    missing = [field for field in FIELDS if not facts[field]]
    assert not missing, f"{path} opens with comments such as '# acronym: KD'; missing: {', '.join(missing)}"
    assert re.fullmatch(r"(19|20)\d\d", facts["year"]), f"{path}: '# year:' must be a year"
    assert facts["link"].startswith("https://"), f"{path}: '# link:' must begin with https://"


def test_the_completion_script_completes_in_bash():
    script = f"""
    PATH={KDX.parent}:$PATH
    eval "$(kdx completion bash)"
    for line in "kdx " "kdx list m" "kdx completion " "kdx study " "kdx train student=resnet2" \
            "kdx train method.temp" "kdx train experiment=crd/resnet56_resnet20_k" "kdx train m" "kdx train ex"; do
        COMP_LINE="$line" COMP_POINT=${{#line}} COMPREPLY=()
        read -ra COMP_WORDS <<< "$line"
        [[ "$line" == *" " ]] && COMP_WORDS+=("")
        COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
        _kdx
        echo "$line: ${{COMPREPLY[*]}}"
    done
    """
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True, env=dict(os.environ))
    said = dict(line.split(": ", 1) for line in done.stdout.splitlines())
    assert said["kdx "].split() == list(COMMANDS)
    assert said["kdx list m"].split() == ["methods", "models"]
    assert said["kdx completion "].split() == ["bash", "zsh"]
    assert set(said["kdx study "].split()) == {f"study={name}" for name in options("study")}
    assert said["kdx train student=resnet2"].split() == ["student=resnet20", "student=resnet20_ln"]
    assert said["kdx train method.temp"].split() == ["method.temperature="]
    assert said["kdx train experiment=crd/resnet56_resnet20_k"].split() == ["experiment=crd/resnet56_resnet20_kd"]
    assert said["kdx train ex"].split() == ["experiment="]
    assert "method=" in said["kdx train m"].split()
    assert "model=" not in said["kdx train m"].split()


def test_a_reader_that_leaves_early_is_no_error():
    shown = subprocess.run(
        ["bash", "-c", f"{KDX} train --help | true; echo ${{PIPESTATUS[0]}}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout.split() in (["141"], ["0"]) and shown.stderr == ""


def test_the_zsh_script_is_the_bash_one_under_its_compatibility_layer(capsys):
    bash, zsh = (command(capsys, "completion", shell).out for shell in ("bash", "zsh"))
    assert zsh.startswith("autoload") and zsh.endswith(bash)


def test_a_working_directory_that_is_gone_is_reported(capsys, monkeypatch):
    def gone():
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(os, "getcwd", gone)
    said = command(capsys, "train", "seed=1")
    assert said.code == 2
    assert said.err == ["kdx: the working directory does not exist any more; change to another one"]


def test_a_sweep_whose_outputs_cannot_be_written_is_reported(capsys):
    said = command(capsys, "train", "-m", "seed=0,1", "paths.outputs=/proc/nowhere")
    assert said.code == 2
    assert said.err == ["kdx: paths.outputs=/proc/nowhere: No such file or directory"]


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("method=[kd,dkd]", "method takes one option, found method=[kd,dkd]; a sweep is written -m method=kd,dkd"),
        ("+seed=1", "'+seed=1' adds a key that exists; write seed=1"),
        ("method=KD", "unknown method 'KD'; did you mean 'kd'?"),
        (
            "seed=1\r",
            "'seed=1\\r' ends with a carriage return, as in Windows scripts; convert the script to Unix line ends",
        ),
        ("seed=99999999999999999999", "seed: must be less than 9.22337e+18, found 99999999999999999999"),
        ("optimizer.lr=${nope:1}", "optimizer.lr: Unsupported interpolation type nope"),
        (
            "hydra.run.dir=x",
            "hydra.run.dir has no effect: a run's folder is named by its identity; set paths.outputs=x",
        ),
        ("teacher.checkpoint=''", "teacher.checkpoint is empty; give a file, a run's directory or null"),
    ],
)
def test_an_odd_override_is_answered_in_one_line(capsys, tmp_path, monkeypatch, override, line):
    monkeypatch.chdir(tmp_path)
    said = command(capsys, "train", override)
    assert (said.code, said.err) == (2, [f"kdx: {line}"])


@pytest.mark.parametrize(
    "value", ["x" * 5000, "a\nb", "a\x1b[31mb", "[" * 300], ids=["long", "lines", "escape", "open"]
)
def test_a_value_is_quoted_and_cut(capsys, value):
    said = command(capsys, "train", f"optimizer.lr={value}")
    assert said.code == 2 and len(said.err) == 1 and "optimizer.lr" in said.err[0]
    assert len(said.err[0]) < 300 and said.err[0].isprintable()
