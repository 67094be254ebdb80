"""Composition of configs by Hydra, with its errors told in one line each."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from kdx.core.errors import UserError, did_you_mean

Config = dict[str, Any]


class ConfigError(UserError):
    """Everything that is wrong with a config, one line each."""

    def __init__(self, problems: Sequence[str]):
        self.problems = list(dict.fromkeys(problems))
        super().__init__("\n".join(self.problems))


@dataclass(frozen=True)
class Composed:
    """A config as plain containers, interpolations resolved.

    Attributes:
        config: The values.
        choices: The option chosen of each group, such as {"dataset": "cifar100"}.
        interpolated: Paths whose value comes from elsewhere in the config, where it is checked.
    """

    config: Config
    choices: dict[str, str | None]
    interpolated: frozenset[str]


def config_dir() -> Path:
    """Where the YAML files are: beside the code in a wheel, at the top of the repository otherwise."""
    package = Path(__file__).resolve().parent.parent
    shipped = package / "configs"
    return shipped if shipped.is_dir() else package.parent / "configs"


def options(group: str) -> list[str]:
    """Names of a group's options, nested ones with slashes."""
    if group in ("student", "teacher"):
        return sorted(set(_files(group)) - {"base"} | set(_files("model")))
    return _files(group)


def _files(group: str) -> list[str]:
    folder = config_dir() / group
    return sorted(p.relative_to(folder).with_suffix("").as_posix() for p in folder.rglob("*.yaml"))


def register_networks() -> None:
    """Offer each file of `model/` as an option of `student` and of `teacher`, so that it is written once."""
    store = ConfigStore.instance()
    for role in ("student", "teacher"):
        present = set(_files(role))
        for name in _files("model"):
            if name not in present:
                store.store(group=role, name=name, node={"defaults": ["base", {"/model@net": name}]})


def compose(overrides: Sequence[str], config_name: str = "train") -> Composed:
    """Compose a config.

    Args:
        overrides: In Hydra's grammar, without sweeps.
        config_name: A file at the top of `configs/`.

    Raises:
        ConfigError: With a line for each override that is wrong.
    """
    register_networks()
    previous = GlobalHydra.instance().hydra  # a run inside `hydra.main` has one already
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(config_dir()), version_base="1.3", job_name="kdx"):
            try:
                return plain(hydra_compose(config_name, list(overrides), return_hydra_config=True))
            except (HydraException, OmegaConfBaseException) as error:
                raise ConfigError(_diagnose(overrides, config_name, error)) from None
    finally:
        GlobalHydra.instance().clear()
        if previous is not None:
            GlobalHydra.instance().initialize(previous)


def plain(cfg: DictConfig, choices: dict[str, str | None] | None = None) -> Composed:
    """A composed config as plain containers.

    Args:
        cfg: With its `hydra` node, unless choices are given.
        choices: The option of each group.
    """
    if choices is None:
        choices = dict(cfg.hydra.runtime.choices)
    # resolved as a whole, since interpolations cross nodes; hydra's own node has missing values
    container = OmegaConf.to_container(
        OmegaConf.masked_copy(cfg, [str(k) for k in cfg if k != "hydra"]), resolve=True, throw_on_missing=True
    )
    assert isinstance(container, dict)
    return Composed(
        {str(k): v for k, v in container.items()},
        {k: v for k, v in choices.items() if "hydra" not in k},
        frozenset(_interpolations(cfg, "")),
    )


def _interpolations(node: Any, prefix: str) -> Iterator[str]:
    if isinstance(node, DictConfig):
        for name in map(str, node):
            if OmegaConf.is_interpolation(node, name):
                yield f"{prefix}{name}"
            elif name != "hydra" and not OmegaConf.is_missing(node, name):
                yield from _interpolations(node[name], f"{prefix}{name}.")


def points(overrides: Sequence[str]) -> list[list[str]]:
    """Override lists without sweeps that together use every value of a sweep once.

    Values are varied one axis at a time from the first of each: enough to find a mistake without
    composing the whole product.
    """
    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
    except HydraException as error:
        wrong = next((o for o in overrides if repr(o)[1:-1] in str(error)), "")
        raise ConfigError([explain(error, wrong)]) from None
    axes: list[list[str]] = []
    for text, override in zip(overrides, parsed, strict=True):
        key, value = override.get_key_element(), override.value()
        if isinstance(value, Glob):
            axes.append([f"{key}={name}" for name in value.filter(options(key))])
        elif override.is_sweep_override():
            axes.append([f"{key}={v}" for v in override.sweep_string_iterator()])
        else:
            axes.append([text])
    first = [axis[0] for axis in axes]
    varied = [[*first[:i], v, *first[i + 1 :]] for i, axis in enumerate(axes) for v in axis[1:]]
    return [first, *varied]


def _diagnose(overrides: Sequence[str], config_name: str, error: Exception) -> list[str]:
    """A line for each override that is wrong by itself, or the error of them all together."""
    good: list[str] = []
    problems = []
    # group choices first: whether a key exists depends on them
    for override in sorted(overrides, key=lambda o: not _chooses_group(o)):
        try:
            hydra_compose(config_name, [*good, override])
            good.append(override)
        except (HydraException, OmegaConfBaseException) as found:
            problems.append(explain(found, override))
    return problems or [explain(error)]


def _chooses_group(override: str) -> bool:
    key = override.split("=", 1)[0].lstrip("+~").split("@", 1)[0]
    return (config_dir() / key).is_dir()


def explain(error: Exception, override: str = "") -> str:
    """One line for an error of Hydra's or OmegaConf's."""
    text = str(error)
    if found := re.search(r"Could not find '([\w.-]+(?:/[\w.-]+)*)/([\w.-]+)'", text):
        group, name = found.groups()
        return f"unknown {group} '{name}'{did_you_mean(name, options(group))}"
    if re.search(r"Key '[^']*' is not in struct|Could not override '([^']+)'", text) and override:
        key = override.split("=", 1)[0].lstrip("+~")
        return f"unknown key '{key}'{did_you_mean(key, _keys_like(key))}"
    if "mismatched input" in text or "extraneous input" in text or "no viable alternative" in text:
        return f"cannot read the override '{override}'; expected key=value (quote values that hold special characters)"
    if isinstance(error, OmegaConfBaseException) and "Missing mandatory value" in text:
        return f"a value is missing: {text.splitlines()[0].split(': ', 1)[1]}"
    if found := re.search(r"You must specify '([^']+)'", text):
        return f"choose one of the group '{found[1]}': {', '.join(options(found[1]))}"
    if found := re.search(r"Interpolation key '([^']+)' not found", text):
        return f"'{override or found[1]}' refers to '{found[1]}', which does not exist in this config"
    first = text.strip().splitlines()[0] if text.strip() else type(error).__name__
    return f"{override}: {first}" if override else first


def _keys_like(key: str) -> list[str]:
    """Full keys of the default config, to compare a misspelt one with."""
    try:
        cfg = hydra_compose("train", [])
    except (HydraException, OmegaConfBaseException):
        return []
    found: list[str] = []

    def walk(node: Any, prefix: str) -> None:
        if isinstance(node, DictConfig):
            for name in map(str, node):
                path = f"{prefix}{name}"
                found.append(path)
                if not OmegaConf.is_missing(node, name) and not OmegaConf.is_interpolation(node, name):
                    walk(node[name], f"{path}.")

    walk(cfg, "")
    return found + [p for p in config_dir().iterdir() if p.is_dir() for p in [p.name]]
