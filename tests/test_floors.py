"""The rules of imports between rooms, each with a planted violation that the linter must report.

`make floors` checks the layers. The rules here read the source, so that no import inside a function and no import by
name escapes them.
"""

import ast
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# files that import a module by a name which is known at run time alone
BY_NAME = {
    "__init__.py",  # the public names, each imported when it is used
    "config/trusted.py",  # a `_target_` of kdx, to see whether a signature asks for it
    "config/validate.py",  # a `_target_` of a config
    "runs/build.py",  # the same, built
    "sweeps/trial.py",  # a pruner of Optuna's
    "tables/metrics.py",  # each module of kdx/evals, for the metrics it measures
}
# files that name standard error
STDERR = {
    "core/notice.py",  # prints every line
    "engine/record/bar.py",  # draws the progress bar
    "pool/workers.py",  # sends a worker's output to a file
}
DYNAMIC = {
    *("import_module", "__import__", "resolve_name", "pkgutil", "runpy", "walk_packages", "iter_modules"),
    *("exec_module", "load_module", "spec_from_file_location", "instantiate", "get_class", "get_object", "get_method"),
}


def parsed(folder: Path) -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted(folder.rglob("*.py")):
        yield path, ast.parse(path.read_text(), str(path))


def imported(tree: ast.Module) -> set[str]:
    """Top-level names of absolute imports, wherever they stand."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


def words(tree: ast.Module) -> set[str]:
    """Identifiers, names that are imported, and the parts of strings that could be dotted names."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.alias):
            found |= {*node.name.split("."), *filter(None, [node.asname])}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= set(node.module.split("."))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and " " not in node.value:
            found |= set(node.value.split("."))
    return found


def core(kdx: Path) -> list[str]:
    """`core` imports torch and the standard library."""
    allowed = {"torch", "kdx", *sys.stdlib_module_names}
    return [
        f"core/{path.name} imports {name}"
        for path, tree in parsed(kdx / "core")
        for name in sorted(imported(tree) - allowed)
    ]


def engine(kdx: Path) -> list[str]:
    methods = {
        node.name
        for _, tree in parsed(kdx / "methods")
        for node in tree.body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    }
    assert len(methods) > 10
    return [
        f"{path.relative_to(kdx)} names {name}"
        for path, tree in parsed(kdx / "engine")
        for name in sorted(words(tree) & {*methods, "methods"})
    ]


def dynamic(kdx: Path) -> list[str]:
    return [
        f"{path.relative_to(kdx)} uses {name}"
        for path, tree in parsed(kdx)
        if path.relative_to(kdx).as_posix() not in BY_NAME
        for name in sorted(words(tree) & DYNAMIC)
    ]


def spoken(kdx: Path) -> list[str]:
    """Lines to the user on standard error pass `kdx.core.notice`, which makes them printable."""
    return [
        f"{path.relative_to(kdx)} uses stderr; kdx.core.notice prints lines to the user"
        for path, tree in parsed(kdx)
        if path.relative_to(kdx).as_posix() not in STDERR and "stderr" in words(tree)
    ]


RULES: dict[str, Callable[[Path], list[str]]] = {"core": core, "engine": engine, "dynamic": dynamic, "spoken": spoken}


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_the_rule_holds(rule: Callable[[Path], list[str]]):
    assert rule(ROOT / "kdx") == []


@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_a_file_that_may_import_by_name_does(name: str):
    assert words(ast.parse((ROOT / "kdx" / name).read_text())) & DYNAMIC


@pytest.mark.parametrize(
    ("rule", "file", "line"),
    [
        ("core", "core/batch.py", "import numpy"),
        ("core", "core/batch.py", "def f():\n    from scipy import stats"),
        ("core", "core/new.py", "import yaml.loader as loader"),
        ("core", "core/seed.py", "import numpy as np"),
        ("core", "core/ranges.py", "from annotated_types import Ge"),
        ("engine", "engine/trainer.py", "def f(method):\n    return type(method).__name__ == 'Mutual'"),
        ("engine", "engine/optim/update.py", "from kdx.methods.distill import Distill as D"),
        ("engine", "engine/new.py", "TARGET = 'kdx.methods.distill.Distill'"),
        ("dynamic", "losses/logits/kd.py", "import importlib\nimportlib.import_module('kdx.methods.distill')"),
        ("dynamic", "core/new.py", "from importlib import import_module as load"),
        ("dynamic", "engine/clock.py", "def f():\n    return __import__('kdx.methods')"),
        ("dynamic", "data/order.py", "import pkgutil"),
        ("dynamic", "studies/grid.py", "from hydra.utils import instantiate"),
        ("spoken", "runs/memo.py", "import sys\nprint('kdx: no memo', file=sys.stderr)"),
    ],
)
def test_a_planted_violation_is_found(tmp_path: Path, rule: str, file: str, line: str):
    kdx = tmp_path / "kdx"
    shutil.copytree(ROOT / "kdx", kdx, ignore=shutil.ignore_patterns("__pycache__"))
    with open(kdx / file, "a") as source:
        source.write(f"\n{line}\n")
    found = RULES[rule](kdx)
    assert found and all(problem.startswith(file) for problem in found)


def lint(root: Path) -> subprocess.CompletedProcess[str]:
    command = "from importlinter.cli import lint_imports; import sys; sys.exit(lint_imports(no_cache=True))"
    environment = {"PYTHONPATH": str(root), "PATH": "/usr/bin:/bin", "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, "-c", command], cwd=root, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "line", "said"),
    [
        ("stray/__init__.py", "X = 1", "stray"),  # a package without a floor, which nobody imports
        ("core/weigh.py", "import kdx.losses.logits.kd", "kdx.core.weigh"),
        ("data/order.py", "def f():\n    import hydra", "hydra"),
        ("engine/clock.py", "import kdx.methods.distill", "kdx.engine.clock"),
        ("runs/lock.py", "import wandb", "wandb"),
    ],
)
def test_the_layers_find_a_planted_violation(tmp_path: Path, file: str, line: str, said: str):
    shutil.copytree(ROOT / "kdx", tmp_path / "kdx", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    assert lint(tmp_path).returncode == 0
    path = tmp_path / "kdx" / file
    path.parent.mkdir(exist_ok=True)
    with open(path, "a") as source:
        source.write(f"\n{line}\n")
    done = lint(tmp_path)
    assert done.returncode == 1 and said in done.stdout
