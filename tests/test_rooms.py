"""Each room's README is short, names the imports that the linter allows, and its examples run."""

import importlib.util
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from door import command

from kdx.config.layout import OWN

ROOT = Path(__file__).resolve().parents[1]
ROOMS = sorted(path.parent.name for path in (ROOT / "kdx").glob("*/__init__.py"))
TEXTS = [path for path in sorted(ROOT.rglob("*.md")) if path.relative_to(ROOT).parts[0] not in ("build", ".venv")]
SHORT = ["debug=fast", "logger=none", "trainer.threads=1"]


def script():
    spec = importlib.util.spec_from_file_location("readme_script", ROOT / "scripts" / "readme.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def blocks(text: str) -> Iterator[tuple[str, str]]:
    """Language and content of each fenced block."""
    for found in re.finditer(r"^```(\w+)\n(.*?)^```$", text, re.M | re.S):
        yield found[1], found[2]


@pytest.mark.parametrize("room", ROOMS)
def test_it_fits_on_a_screen(room: str):
    path = ROOT / "kdx" / room / "README.md"
    assert path.is_file(), f"the room kdx/{room} needs a README.md; see those of other rooms"
    assert len(path.read_text().splitlines()) <= 60, f"shorten {path.relative_to(ROOT)}"


def test_every_generated_part_is_up_to_date():
    stale = [path.relative_to(ROOT).as_posix() for path, text in script().generated() if path.read_text() != text]
    assert not stale, f"{', '.join(stale)}: run python scripts/readme.py"


def test_a_room_names_what_the_linter_lets_it_import():
    # by hand for three rooms, as the others' lines are made by the same function
    said = script().may_import
    assert said("core") == "Imports nothing from kdx. Never imports Hydra or OmegaConf."
    assert said("losses") == "Imports from kdx: `core`. Never imports Hydra or OmegaConf."
    assert "`config`" in said("runs") and "`studies`" not in said("runs") and "`runs`" not in said("runs")


def test_the_table_of_files_names_files_that_exist():
    for room in ROOMS:
        folder = ROOT / "kdx" / room
        rows = [line for line in (folder / "README.md").read_text().splitlines() if line.startswith("| `")]
        names = [name for row in rows for name in re.findall(r"`([^`]+)`", row.split("|")[1])]
        gone = [name for name in names if not list(folder.glob(name.rstrip("/")))]
        assert names and not gone, f"kdx/{room}/README.md names {', '.join(gone)}, which is not there"


@pytest.mark.parametrize("room", ROOMS)
def test_its_examples_run(room: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setenv(OWN, "")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    own = {name for name in sys.modules if name.split(".")[0] == "own_parts"}
    for name in own:  # another room's example
        monkeypatch.delitem(sys.modules, name)
    outputs = f"paths.outputs={tmp_path / 'outputs'}"
    place = [f"--config-dir={tmp_path / 'configs'}"] if "# file: configs" in _text(room) else []
    ran = 0
    for language, content in blocks(_text(room)):
        if found := re.match(r"# file: (\S+)\n", content):
            path = tmp_path / found[1]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content[found.end() :])
        elif language == "python":
            exec(compile(content, f"{room}/README.md", "exec"), {"SHORT": [*SHORT, outputs]})
            ran += 1
        elif language == "console":
            for line in content.splitlines():
                assert line.startswith("$ kdx "), line
                _kdx(line.removeprefix("$ kdx "), place, outputs, tmp_path, capsys)
                ran += 1
    assert ran or room == "core"


def _text(room: str) -> str:
    return (ROOT / "kdx" / room / "README.md").read_text()


def _kdx(line: str, place: list[str], outputs: str, folder: Path, capsys) -> None:
    first, *rest = (word.replace("OUTPUTS", str(folder / "outputs")) for word in shlex.split(line))
    more = []
    if first == "train":
        more = [*place, *SHORT, outputs]
    elif first == "study":
        more = [*place, outputs, f"overrides=[{','.join(map(json.dumps, SHORT))}]"]
    said = command(capsys, first, *rest, *more)
    assert said.code == 0, f"kdx {line}: {said.err}"


def test_every_relative_link_leads_somewhere():
    broken = [
        f"{path.relative_to(ROOT)}: {link}"
        for path in TEXTS
        for link in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"^```.*?^```", "", path.read_text(), flags=re.M | re.S))
        if "://" not in link and not link.startswith("#") and not (path.parent / link.split("#")[0]).exists()
    ]
    assert not broken, broken


def test_every_path_in_a_readme_exists():
    """Paths in backquotes that begin with a top-level folder are those of the repository."""
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files"], capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    texts = [p for p in TEXTS if p.name not in ("CHANGELOG.md",)]
    gone = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in texts
        for name in re.findall(r"`((?:kdx|configs|scripts|tests|\.github)/[\w./-]+)`", path.read_text())
        if not _planned(name) and not (ROOT / name).exists() and not (path.parent / name).exists()
    ]
    assert not gone, gone


def _planned(name: str) -> bool:
    """A file that a reader is to write: x.yaml, test_x.py, and the names of the rooms' examples."""
    return bool(re.search(r"(^|[/_])x(\.|/|$)", name)) or name.endswith(("stripes.yaml",))


def test_a_long_file_says_why_it_is_one():
    long = [path for path in (ROOT / "kdx").rglob("*.py") if len(path.read_text().splitlines()) > 260]
    assert len(long) < 10
    silent = [path.relative_to(ROOT) for path in long if "one file" not in path.read_text().split('"""')[1].lower()]
    assert not silent, f"{silent[0]} has more than 250 lines: split it, or say in its head why it stays in one file"
