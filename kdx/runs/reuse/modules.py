"""Fingerprints of a user's own modules, which a config names by `_target_`."""

import ast
import hashlib
import importlib.util
import site
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.machinery import ModuleSpec
from pathlib import Path


def fingerprints(targets: Iterable[str]) -> dict[str, str]:
    """Hash of the source of each module that defines a target, and of the user's modules that it imports.

    Modules of kdx, of the standard library and of installed packages are left out: their versions are recorded.

    Args:
        targets: Full names of classes or functions.
    """
    found: dict[str, str] = {}
    waiting = [target.rpartition(".")[0] for target in targets]
    while waiting:
        name = waiting.pop()
        file = None if name in found else _own_file(name)
        if file is None:
            continue
        source = file.read_bytes()
        found[name] = hashlib.sha256(source).hexdigest()[:12]
        waiting += [other for other in _imports(source, name, file) if other not in found]
    return dict(sorted(found.items()))


def change(old: dict[str, str], new: dict[str, str]) -> str | None:
    """The first difference between two fingerprints, in words; None if modules are the same or have gone."""
    differ = [name for name in sorted(old.keys() & new.keys()) if old[name] != new[name]]
    if not differ:
        return None
    more = f" and {len(differ) - 1} more" if len(differ) > 1 else ""
    return f"the module {differ[0]}{more} was edited"


def _own_file(name: str) -> Path | None:
    """The source of a user's module; None for other modules and for those that are not found."""
    if not name or not _is_own(name.partition(".")[0]):
        return None
    spec = _spec(name)
    file = Path(spec.origin) if spec is not None and spec.has_location and spec.origin else None
    return file if file is not None and file.is_file() else None


@cache
def _is_own(root: str) -> bool:
    """Whether a top-level module or package is the user's."""
    if root in ("kdx", "__main__") or root in sys.stdlib_module_names:
        return False
    spec = _spec(root)
    if spec is None:
        return False
    places = [spec.origin] if spec.has_location and spec.origin else list(spec.submodule_search_locations or ())
    return bool(places) and not any(Path(place).is_relative_to(folder) for place in places for folder in _installed())


def _spec(name: str) -> ModuleSpec | None:
    try:
        module = sys.modules.get(name)
        return importlib.util.find_spec(name) if module is None else module.__spec__
    except (ImportError, AttributeError, ValueError):
        return None  # the name of a class or function, or a module without a spec


def _installed() -> tuple[str, ...]:
    """Folders of the standard library and of installed packages."""
    paths = [sysconfig.get_paths()[key] for key in ("stdlib", "platstdlib", "purelib", "platlib")]
    return (*paths, *site.getsitepackages(), site.getusersitepackages())


def _imports(source: bytes, name: str, file: Path) -> Iterator[str]:
    """Names that a module imports: modules, and names in modules that may be modules."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parent = node.module or ""
            if node.level:
                above = package.rsplit(".", node.level - 1)[0] if node.level > 1 else package
                parent = f"{above}.{parent}".strip(".")
            yield parent
            yield from (f"{parent}.{alias.name}" for alias in node.names)
