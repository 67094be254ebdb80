"""The contract of a study: every shipped study keeps it, and a user's own needs nothing else."""

import importlib
import inspect
import os
from collections.abc import Mapping
from typing import Any, ClassVar

import pytest
from door import command
from study_options import study_options

from kdx.config.compose import compose
from kdx.config.layout import OWN, options
from kdx.core.errors import UserError
from kdx.studies.chain import Chain
from kdx.studies.clusters import Clusters
from kdx.studies.data_free import DataFree
from kdx.studies.distillers.study import Distillers
from kdx.studies.grid import Grid
from kdx.studies.networks import Networks
from kdx.studies.options import NARROWING, Options
from kdx.studies.paper_table import PaperTable
from kdx.studies.papers import Papers
from kdx.studies.ranking import Ranking
from kdx.studies.specialists import Specialists
from kdx.studies.study import Study, check_study
from kdx.tables.sequential import Seeds

# the classes that shipped configs name
KINDS: list[type[Study]] = [Grid, Chain, PaperTable, DataFree, Specialists, Clusters, Networks, Ranking]
KINDS += [Distillers, Papers]

ASKED: dict[str, Any] = {"scale": "cpu", "rows": ["a"], "columns": ["b"], "seeds": Seeds(width=None, max=5, holm=True)}


@pytest.mark.parametrize("name", options("study"))
def test_every_shipped_study_names_a_class_that_keeps_the_protocol(name: str):
    target = compose([f"study={name}"], "study").config["study"]["_target_"]
    module, _, kind = target.rpartition(".")
    study = getattr(importlib.import_module(module), kind)
    assert study in KINDS
    assert isinstance(study.accepts, frozenset) and study.accepts <= set(NARROWING)
    assert list(inspect.signature(study.execute).parameters) == ["self", "paths", "options"]


class Counts:
    """The smallest study."""

    accepts: ClassVar[frozenset[str]] = frozenset({"rows"})

    def execute(self, paths: Mapping[str, str], options: Options) -> list[str]:
        return []


@pytest.mark.parametrize("kind", [*KINDS, Counts])
@pytest.mark.parametrize("name", NARROWING)
def test_an_option_that_a_study_does_not_apply_is_refused(kind: type[Study], name: str):
    study = kind.__new__(kind)  # what it accepts is the class's
    asked = study_options(**{name: ASKED[name]})
    if name in kind.accepts:
        assert check_study(study, asked) is study
    else:
        with pytest.raises(UserError, match=f"^{name}: a {kind.__name__} study does not apply this option"):
            check_study(study, asked)
    assert check_study(study, study_options()) is study


OWN_STUDY = """
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar


@dataclass(frozen=True, kw_only=True)
class Greeting:
    accepts: ClassVar[frozenset[str]] = frozenset({"rows"})
    text: str

    def execute(self, paths, options):
        Path(paths["outputs"]).mkdir(parents=True, exist_ok=True)
        Path(paths["outputs"], "greeting.txt").write_text(f"{self.text} {options.jobs} {options.rows}")
        return ["one run failed"] if self.text == "bad" else []


class NoStudy:
    def __init__(self, text: str):
        pass
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(OWN, str(tmp_path / "configs"))  # as `--config-dir` leaves it to processes started from here
    (tmp_path / "own_study.py").write_text(OWN_STUDY)
    (tmp_path / "configs" / "study").mkdir(parents=True)
    for name, kind in (("mine", "Greeting"), ("none", "NoStudy")):
        (tmp_path / "configs" / "study" / f"{name}.yaml").write_text(f"_target_: own_study.{kind}\ntext: hello\n")
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_a_users_own_study_runs_from_the_command_line(own, capsys):
    os.environ[OWN] = ""
    said = command(capsys, "study", f"--config-dir={own}/configs", "study=mine", "jobs=2", "rows=[a]")
    assert (said.code, said.err) == (0, [])
    assert (own / "outputs" / "greeting.txt").read_text() == "hello 2 ['a']"
    said = command(capsys, "study", "study=mine", "study.text=bad")
    assert (said.code, said.err) == (1, ["kdx: failed: one run failed"])


def test_its_mistakes_are_reported_in_a_line_each(own, capsys):
    for arguments, line in (
        (["study=mine", "study.txt=1"], "unknown key 'study.txt'"),
        (["study=mine", "scale=cpu"], "scale: a Greeting study does not apply this option; it applies rows"),
        (["study=none"], "study._target_: NoStudy is no study"),
    ):
        said = command(capsys, "study", *arguments)
        assert said.code == 2 and any(line in found for found in said.err), said.err
        assert not (own / "outputs").exists()
