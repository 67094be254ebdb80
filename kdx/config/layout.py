"""Finds the folders of YAML files and the options of each group."""

import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin

from kdx.core.errors import UserError

ROLES = ("student", "teacher")
OWN = "KDX_CONFIGS"  # a user's folders of groups, separated as in PATH; worker processes inherit it


def config_dir() -> Path:
    """Folder of the shipped YAML files: inside the package in a wheel, at the top of the repository otherwise."""
    package = Path(__file__).resolve().parent.parent
    shipped = package / "configs"
    return shipped if shipped.is_dir() else package.parent / "configs"


def config_dirs() -> list[Path]:
    """The shipped folder, then the user's folders.

    Raises:
        UserError: A path is not a folder, or two folders have a file of the same name.
    """
    return [config_dir(), *_own(os.environ.get(OWN) or "")]


def add_config_dir(folder: str) -> None:
    """Add a folder of YAML files, for this process and the processes that it starts.

    Raises:
        UserError: As `config_dirs`.
    """
    given = [str(Path(folder).expanduser().absolute()), *filter(None, [os.environ.get(OWN)])]
    os.environ[OWN] = os.pathsep.join(given)
    config_dirs()


def take_config_dirs(arguments: Sequence[str]) -> list[str]:
    """Add the folders of Hydra's option `--config-dir` on a command line, and return the other arguments.

    Raises:
        UserError: As in `add_config_dir`, or the option has no value.
    """
    rest, ahead = [], iter(arguments)
    for argument in ahead:
        option, sign, folder = argument.partition("=")
        if option not in ("--config-dir", "-cd"):
            rest.append(argument)
            continue
        folder = folder if sign else next(ahead, "")
        if not folder:
            raise UserError(f"{option} needs a folder of configs: {option}=FOLDER")
        add_config_dir(folder)
    return rest


def config_file(group: str, name: str) -> Path:
    """The file of an existing option."""
    return next(path for root in config_dirs() if (path := root / group / f"{name}.yaml").is_file())


def options(group: str) -> list[str]:
    """Names of a group's options, nested ones with slashes."""
    if group in ROLES:
        return sorted(set(_files(group)) - {"base"} | set(_files("model")))
    return _files(group)


def is_group(key: str) -> bool:
    """Whether a key names a folder of options."""
    try:
        return any((root / key).is_dir() for root in config_dirs())
    except OSError:  # too long for the name of a file
        return False


class OwnConfigs(SearchPathPlugin):
    """Adds the user's folders to Hydra's search path."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for folder in config_dirs()[1:]:
            search_path.append("kdx-own", f"file://{folder}")


def register_networks() -> None:
    """Register each file of `model/` as an option of both `student` and `teacher`."""
    _register(os.environ.get(OWN))


@cache
def _register(_own_folders: str | None) -> None:
    Plugins.instance().register(OwnConfigs)
    store = ConfigStore.instance()
    # Hydra deep-copies its sources for each config, and for each group of its help, which takes most of the start-up
    # time. It copies each node again when it reads it, so the store itself needs no copy.
    vars(store)["__deepcopy__"] = lambda memo: store
    for role in ROLES:
        present = set(_files(role))
        for name in _files("model"):
            if name not in present:
                store.store(group=role, name=name, node={"defaults": ["base", {"/model@net": name}]})


@cache
def _own(listed: str) -> tuple[Path, ...]:
    entries = filter(None, listed.split(os.pathsep))
    folders = list(dict.fromkeys(Path(entry).expanduser().absolute() for entry in entries))  # without duplicates
    if not folders:
        return ()
    taken = {path: config_dir() for path in _below(config_dir())}
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder} is not a folder; config folders hold groups, such as {folder}/method/")
        for path in _below(folder):
            if path in taken:
                raise UserError(f"{folder / path} has the same name as {taken[path] / path}; rename it")
        taken |= {path: folder for path in _below(folder)}
    return tuple(folders)


def _below(folder: Path) -> list[Path]:
    return [p.relative_to(folder) for p in folder.glob("*/**/*.yaml")]


def _files(group: str) -> list[str]:
    roots = [root / group for root in config_dirs()]
    return sorted(p.relative_to(root).with_suffix("").as_posix() for root in roots for p in root.rglob("*.yaml"))
