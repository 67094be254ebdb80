"""Where the YAML files are, and which options each group has."""

from functools import cache
from pathlib import Path

from hydra.core.config_store import ConfigStore

ROLES = ("student", "teacher")


def config_dir() -> Path:
    """Where the YAML files are: beside the code in a wheel, at the top of the repository otherwise."""
    package = Path(__file__).resolve().parent.parent
    shipped = package / "configs"
    return shipped if shipped.is_dir() else package.parent / "configs"


def options(group: str) -> list[str]:
    """Names of a group's options, nested ones with slashes."""
    if group in ROLES:
        return sorted(set(_files(group)) - {"base"} | set(_files("model")))
    return _files(group)


def is_group(key: str) -> bool:
    """Whether a key names a folder of options."""
    return (config_dir() / key).is_dir()


@cache
def register_networks() -> None:
    """Offer each file of `model/` as an option of `student` and of `teacher`, so that it is written once."""
    store = ConfigStore.instance()
    for role in ROLES:
        present = set(_files(role))
        for name in _files("model"):
            if name not in present:
                store.store(group=role, name=name, node={"defaults": ["base", {"/model@net": name}]})


def _files(group: str) -> list[str]:
    folder = config_dir() / group
    return sorted(p.relative_to(folder).with_suffix("").as_posix() for p in folder.rglob("*.yaml"))
