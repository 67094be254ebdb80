"""The wheel, the source archive and the lock: complete, and without traces of the machine that made them."""

import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def build(target: str, source: Path, into: Path) -> Path:
    """Build a "wheel" or "sdist" of a source tree."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(into)]
    subprocess.run(command, cwd=source, check=True, capture_output=True, stdin=subprocess.DEVNULL, timeout=500)
    return next(into.iterdir())


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", ROOT, tmp_path_factory.mktemp("wheel"))


def test_the_wheel_holds_every_config_as_it_is(wheel: Path):
    files = contents(wheel)
    configs = [p for p in (ROOT / "configs").rglob("*.yaml") if "local" not in p.relative_to(ROOT).parts]
    assert configs
    expected = {f"kdx/{p.relative_to(ROOT).as_posix()}": p.read_bytes() for p in configs}
    assert {name: data for name, data in files.items() if name.startswith("kdx/configs/")} == expected


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path):
    files = contents(wheel)
    modules = {p.relative_to(ROOT).as_posix() for p in (ROOT / "kdx").rglob("*.py")}
    assert {name for name in files if name.endswith(".py")} == modules
    assert {name.split("/")[0].split("-")[0] for name in files} == {"kdx"}


def test_the_wheel_says_that_it_is_typed_and_leaves_readmes_out(wheel: Path):
    names = contents(wheel)
    assert "kdx/py.typed" in names
    assert not [name for name in names if name.endswith("README.md")]


def test_the_sdist_holds_what_its_readme_shows(tmp_path: Path):
    source = unpacked_sdist(tmp_path)
    readmes = {p.relative_to(ROOT).as_posix() for p in (ROOT / "kdx").rglob("README.md")}
    held = {p.relative_to(source).as_posix() for p in source.rglob("*") if p.is_file()}
    assert readmes <= held and {"outputs/tables/demo.png", "CITATION.cff", ".github/rooms.svg"} <= held


def test_the_wheel_leaves_a_machines_own_values_at_home(tmp_path: Path):
    source = unpacked_sdist(tmp_path)
    local = source / "configs" / "local" / "default.yaml"
    local.parent.mkdir(exist_ok=True)
    local.write_text("seed: 7\n")
    assert not [name for name in contents(build("wheel", source, tmp_path / "wheel")) if "local" in Path(name).parts]


def test_the_sdist_makes_the_same_wheel(wheel: Path, tmp_path: Path):
    again = contents(build("wheel", unpacked_sdist(tmp_path), tmp_path / "wheel"))
    assert again == contents(wheel)


def unpacked_sdist(folder: Path) -> Path:
    with tarfile.open(build("sdist", ROOT, folder / "sdist")) as archive:
        archive.extractall(folder / "source", filter="data")
    return next((folder / "source").iterdir())


def test_the_wheel_composes_its_configs_away_from_the_repository(wheel: Path, tmp_path: Path):
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    scripts = next(data for name, data in contents(wheel).items() if name.endswith("entry_points.txt"))
    assert b"kdx = kdx.cli:main" in scripts
    program = "import sys; sys.path.insert(0, sys.argv.pop(1)); from kdx.cli import main; main()"

    def kdx(*arguments: str) -> str:
        command = [sys.executable, "-P", "-c", program, str(site), *arguments]
        done = subprocess.run(
            command, cwd=elsewhere, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=500
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "kdx train" in kdx("--help")
    assert "_target_: kdx.losses.logits.dkd.DKD" in kdx("train", "method=dkd", "--cfg", "job")
    # where its configs come from is part of what Hydra tells
    assert f"{site}/kdx/configs" in kdx("train", "--info", "config")
    assert not any(elsewhere.iterdir())


def locked() -> list[tuple[Requirement, list[str]]]:
    """Requirements of the lock with their options, continued lines joined and comments dropped."""
    text = (ROOT / "requirements.lock").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    parts = [line.split(" --") for line in lines]
    return [(Requirement(head.strip()), [o.strip() for o in options]) for head, *options in parts]


def test_the_lock_pins_each_requirement_by_version_and_hash():
    for requirement, options in locked():
        assert re.fullmatch(r"==[^*,]+", str(requirement.specifier)), requirement
        assert options, f"{requirement} has no hash"
        assert all(re.fullmatch(r"hash=sha256:[0-9a-f]{64}", option) for option in options), requirement


def test_the_lock_names_no_index_and_no_place():
    text = (ROOT / "requirements.lock").read_text()
    assert not re.findall(r"\w+://|--index|--extra-index|--find-links|file:| @ ", text)


def test_the_lock_satisfies_the_project():
    pins: dict[str, list[Requirement]] = {}
    for requirement, _ in locked():
        pins.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    for text in [
        *PROJECT["dependencies"],
        *(text for extra in PROJECT["optional-dependencies"].values() for text in extra),
    ]:
        wanted = Requirement(text)
        found = pins.get(canonicalize_name(wanted.name))
        assert found, f"{wanted.name} is not in requirements.lock; run `make lock`"
        for pin in found:
            (version,) = (s.version for s in pin.specifier)
            assert wanted.specifier.contains(version, prereleases=True), f"{pin} does not satisfy {wanted}"


def test_no_shipped_file_names_a_machine_or_an_index():
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    foreign = re.compile(
        r"(?<![\w.~*)}\]-])/(?:work|root|tmp|home|Users)\b"  # absolute paths of somebody's machine
        r"|pypi\.org|pythonhosted\.org|/(?:simple)/|download\.pytorch\.org/whl"  # package indexes
    )
    found = []
    for name in listed.stdout.split("\0"):
        path = ROOT / name
        if not path.is_file():
            continue
        for number, line in enumerate(path.read_text(errors="ignore").splitlines(), 1):
            if foreign.search(line):
                found.append(f"{name}:{number}: {line.strip()[:100]}")
    assert not found, "\n".join(found)
