"""Where the YAML files are, and which options each group has."""

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
OWN = "KDX_CONFIGS"  # folders with a user's own groups, as PATH lists folders; worker processes inherit it


def config_dir() -> Path:
    """Where the shipped YAML files are: beside the code in a wheel, at the top of the repository otherwise."""
    package = Path(__file__).resolve().parent.parent
    shipped = package / "configs"
    return shipped if shipped.is_dir() else package.parent / "configs"


def config_dirs() -> list[Path]:
    """The shipped folder, and those of a user.

    Raises:
        UserError: One is no folder, or has a file of a name that is taken.
    """
    return [config_dir(), *_own(os.environ.get(OWN) or "")]


def add_config_dir(folder: str) -> None:
    """Take the YAML files of one more folder, in this process and those it starts.

    Raises:
        UserError: As `config_dirs`.
    """
    given = [str(Path(folder).expanduser().absolute()), *filter(None, [os.environ.get(OWN)])]
    os.environ[OWN] = os.pathsep.join(given)
    config_dirs()


def take_config_dirs(arguments: Sequence[str]) -> list[str]:
    """Add the folders of `--config-dir` on a command line, as Hydra calls it, and return the rest of the line.

    Raises:
        UserError: As `add_config_dir`, or no folder is named.
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
    """The file of an option that exists."""
    return next(path for root in config_dirs() if (path := root / group / f"{name}.yaml").is_file())


def options(group: str) -> list[str]:
    """Names of a group's options, nested ones with slashes."""
    if group in ROLES:
        return sorted(set(_files(group)) - {"base"} | set(_files("model")))
    return _files(group)


def is_group(key: str) -> bool:
    """Whether a key names a folder of options."""
    return any((root / key).is_dir() for root in config_dirs())


class OwnConfigs(SearchPathPlugin):
    """Shows a user's folders to Hydra."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for folder in config_dirs()[1:]:
            search_path.append("kdx-own", f"file://{folder}")


def register_networks() -> None:
    """Offer each file of `model/` as an option of `student` and of `teacher`, so that it is written once."""
    _register(os.environ.get(OWN))


@cache
def _register(_own_folders: str | None) -> None:
    Plugins.instance().register(OwnConfigs)
    store = ConfigStore.instance()
    # Hydra copies its sources for each config, and for each group of its help, and copying the nodes takes most of the
    # time; what it reads from the store it copies again
    vars(store)["__deepcopy__"] = lambda memo: store
    for role in ROLES:
        present = set(_files(role))
        for name in _files("model"):
            if name not in present:
                store.store(group=role, name=name, node={"defaults": ["base", {"/model@net": name}]})


@cache
def _own(listed: str) -> tuple[Path, ...]:
    entries = filter(None, listed.split(os.pathsep))
    folders = list(dict.fromkeys(Path(entry).expanduser().absolute() for entry in entries))  # given in two ways: once
    if not folders:
        return ()
    taken = {path: config_dir() for path in _below(config_dir())}
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder} is no folder of configs; it should hold groups, such as {folder}/method/")
        for path in _below(folder):
            if path in taken:
                raise UserError(f"{folder / path} has the name of {taken[path] / path}; give it another")
        taken |= {path: folder for path in _below(folder)}
    return tuple(folders)


def _below(folder: Path) -> list[Path]:
    return [p.relative_to(folder) for p in folder.glob("*/**/*.yaml")]


def _files(group: str) -> list[str]:
    roots = [root / group for root in config_dirs()]
    return sorted(p.relative_to(root).with_suffix("").as_posix() for root in roots for p in root.rglob("*.yaml"))
