"""The README is short, and its commands are commands."""

import re
import shlex
from pathlib import Path

import pytest

from kdx.commands.catalogue import methods_markdown
from kdx.config.compose import compose, points
from kdx.config.layout import OWN, config_dir, options, take_config_dirs
from kdx.runs.prepare import examine

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
COMMANDS = [line.split("  #")[0].strip() for line in README.splitlines() if re.match(r"    (\S+=\S+ )?kdx ", line)]
# what launchers and sweepers read, which no single run has
HYDRA = ("hydra/", "hydra.")


def test_it_stays_short():
    assert len(README.splitlines()) < 160, "move what is detail to a room's README.md or to CONTRIBUTING.md"


def test_the_table_of_methods_is_complete():
    path = config_dir() / "method" / "README.md"
    table = methods_markdown()
    assert f"<!-- methods -->\n{table}\n<!-- /methods -->" in path.read_text(), "run python scripts/readme.py"
    assert all(f"`{name}`" in table for name in options("method"))


def test_its_pictures_are_there_and_the_first_is_the_demos():
    pictures = re.findall(r"^!\[[^\]]+\]\(([^)]+)\)$", README, re.M)
    assert pictures[0] == "outputs/tables/demo.png"
    assert all((ROOT / picture).read_bytes().startswith(b"\x89PNG") for picture in pictures)


@pytest.mark.parametrize("line", [c for c in COMMANDS if "kdx train" in c and "..." not in c])
def test_each_training_command_is_one(line: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(OWN, "")
    monkeypatch.chdir(ROOT)
    if "PYTHONPATH=" in line:
        monkeypatch.syspath_prepend(ROOT / "tests" / "plugin")
    words = shlex.split(line.partition("kdx train ")[2])
    words = [w for w in take_config_dirs(words) if w != "-m" and not w.startswith((*HYDRA, "sweep="))]
    for overrides in points(words, searched=True):
        examine(compose(overrides))


@pytest.mark.parametrize("line", [c for c in COMMANDS if "kdx study" in c])
def test_each_study_is_one(line: str):
    compose(shlex.split(line.partition("kdx study ")[2]), "study")


def test_every_ready_made_sweep_and_launcher_that_it_names_exists():
    for group, name in re.findall(r"(sweep|hydra/launcher|hydra/sweeper)=(\w+)", README):
        known = [*options(group), "joblib", "submitit_slurm"]  # two of Hydra's own plugins
        assert name in known, f"{group}={name}"
