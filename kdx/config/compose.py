"""Composes configs with Hydra, and reports errors in one line each."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from difflib import get_close_matches
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from kdx.config.diagnose import COMPOSE_ERRORS, diagnose, explain
from kdx.config.grammar import several_options, split_readable
from kdx.config.hidden import hidden
from kdx.config.layout import config_dir, options, register_networks
from kdx.core.errors import LONGEST, UserError, shown, some

Config = dict[str, Any]
HYDRA_GROUPS = ("hydra.env",)  # a group of Hydra's whose values are no fields of its own


class ConfigError(UserError):
    """The errors of a config, one line each.

    Attributes:
        problems: The lines.
        rest: Overrides that compose, for a search for further errors; None if there are none.
    """

    def __init__(self, problems: Sequence[str], rest: list[str] | None = None):
        self.problems, self.rest = list(dict.fromkeys(shown(line, LONGEST) for line in problems)), rest
        super().__init__("\n".join(self.problems))


@dataclass(frozen=True)
class Composed:
    """A config as plain containers, interpolations resolved.

    Attributes:
        config: The values.
        choices: The option chosen of each group, such as {"dataset": "cifar100"}.
        interpolated: Paths whose value comes from another path of the config, where it is checked.
        needs_hydra: Whether Hydra's node sets something around the run, such as an environment or a callback.
    """

    config: Config
    choices: dict[str, str | None]
    interpolated: frozenset[str]
    needs_hydra: bool = False


def compose(overrides: Sequence[str], config_name: str = "train") -> Composed:
    """Compose a config.

    Args:
        overrides: In Hydra's grammar, without sweeps.
        config_name: A file at the top of `configs/`.

    Raises:
        ConfigError: With a line for each wrong override.
    """
    register_networks()
    if problems := several_options(overrides):
        raise ConfigError(problems)
    previous = GlobalHydra.instance().hydra  # a run inside `hydra.main` has one already
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(config_dir()), version_base="1.3", job_name="kdx"):
            try:
                cfg = hydra_compose(config_name, list(overrides), return_hydra_config=True)
            except COMPOSE_ERRORS as error:
                found = diagnose(overrides, config_name, error)
                raise ConfigError(found.problems, found.rest) from None
            return plain(cfg)
    finally:
        GlobalHydra.instance().clear()
        if previous is not None:
            GlobalHydra.instance().initialize(previous)


def plain(cfg: DictConfig, choices: dict[str, str | None] | None = None) -> Composed:
    """A composed config as plain containers.

    Args:
        cfg: With its `hydra` node, unless choices are given.
        choices: The option of each group.

    Raises:
        ConfigError: A value is missing, refers to itself, or refers to a path that does not exist.
    """
    if choices is None and (unknown := list(_unknown(cfg.hydra, "hydra."))):
        raise ConfigError(unknown)
    needs_hydra = choices is None and _needs_hydra(cfg)
    if choices is None:
        choices = dict(cfg.hydra.runtime.choices)
    # in one piece, since interpolations cross nodes; Hydra's own node has missing values
    cfg = OmegaConf.masked_copy(cfg, [str(k) for k in cfg if k != "hydra"])
    interpolated = frozenset(_paths(cfg, "", OmegaConf.is_interpolation))
    if missing := [path for path in _paths(cfg, "", OmegaConf.is_missing) if path not in interpolated]:
        raise ConfigError([f"{path} has no value yet; give one: {path}=VALUE" for path in missing])
    try:
        container = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except (OmegaConfBaseException, RecursionError) as error:
        raise ConfigError([explain(error, "", None)]) from None
    assert isinstance(container, dict)
    if gone := hidden({str(k): v for k, v in container.items()}, choices):
        raise ConfigError([f"{path} has no value yet; give one: {path}=VALUE" for path in gone])
    return Composed(
        {str(k): v for k, v in container.items()},
        {k: v for k, v in choices.items() if "hydra" not in k},
        interpolated,
        needs_hydra,
    )


def _needs_hydra(cfg: DictConfig) -> bool:
    """Whether Hydra's node sets something around the run.

    Raises:
        ConfigError: Hydra could not read one of the values.
    """
    node = cfg.hydra
    try:
        # Hydra reads these without the config's other nodes
        job = OmegaConf.masked_copy(cfg, ["hydra"]).hydra.job
        loggings = (node.hydra_logging, node.job_logging)
        callbacks = set(map(str, node.callbacks or ())) - {"failures"}  # a sweep's own
        around = (job.chdir, job.env_set, callbacks, node.verbose, node.output_subdir)
        needed = any(around) or node.mode not in (None, RunMode.RUN) or str(node.run.dir) != "."
    except (OmegaConfBaseException, RecursionError) as error:
        raise ConfigError([explain(error, "", None)]) from None
    for name, value in zip(("hydra_logging", "job_logging"), loggings, strict=True):
        if not isinstance(value, DictConfig | None):
            raise ConfigError([f"hydra.{name} takes a mapping or null, found {shown(str(value))}"])
    if not isinstance(node.verbose, bool | str | ListConfig):
        raise ConfigError([f"hydra.verbose takes true, false or names of loggers, found {shown(str(node.verbose))}"])
    return needed


def _unknown(node: DictConfig, prefix: str) -> Iterator[str]:
    """A line for each key that `++` added to a node of Hydra's own and that Hydra does not have."""
    kind = OmegaConf.get_type(node)
    known = {field.name for field in fields(kind)} if kind is not None and is_dataclass(kind) else None
    for key in map(str, node):
        if known is not None and key not in known and f"{prefix}{key}" not in HYDRA_GROUPS:
            close = get_close_matches(key, known, n=1)
            hint = f"did you mean {prefix + close[0]!r}?" if close else f"{prefix[:-1]} has: {some(sorted(known))}"
            yield f"unknown key '{shown(prefix + key)}'; {hint}"
        elif not OmegaConf.is_interpolation(node, key) and not OmegaConf.is_missing(node, key):
            below = node[key]
            if isinstance(below, DictConfig):
                yield from _unknown(below, f"{prefix}{key}.")


def _paths(node: Any, prefix: str, has: Callable[[DictConfig, Any], bool]) -> Iterator[str]:
    """Full paths of the values for which `has` is true."""
    if isinstance(node, DictConfig):
        keys: list[Any] = list(node)  # a key may be a number
        for name in keys:
            if has(node, name):
                yield f"{prefix}{name}"
            elif not OmegaConf.is_interpolation(node, name) and not OmegaConf.is_missing(node, name):
                yield from _paths(node[name], f"{prefix}{name}.", has)


def points(overrides: Sequence[str], searched: bool = False) -> list[list[str]]:
    """Override lists without sweeps that together use every value of a sweep once.

    Values vary one axis at a time from the first value of each axis. This finds errors without composing the whole
    product.

    Args:
        overrides: In Hydra's grammar.
        searched: Whether a sweeper searches intervals; both ends of an interval are then used.
    """
    if problems := split_readable(overrides)[1]:
        raise ConfigError(problems)
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    axes: list[list[str]] = []
    for text, override in zip(overrides, parsed, strict=True):
        key, value = override.get_key_element(), override.value()
        if isinstance(value, Glob):
            axes.append([f"{key}={name}" for name in value.filter(options(key))])
            if not axes[-1]:
                raise ConfigError([f"{shown(text)} matches no option; {key} has: {some(options(key))}"])
        elif override.is_interval_sweep() and searched:
            interval: Any = value
            axes.append([f"{key}={interval.start}", f"{key}={interval.end}"])
        elif override.is_interval_sweep():
            raise ConfigError(
                [f"{shown(text)} needs a sweeper that searches; list the values: {key}=a,b or range(0,10,2)"]
            )
        elif override.is_sweep_override():
            try:
                axes.append([f"{key}={v}" for v in override.sweep_string_iterator()])
            except COMPOSE_ERRORS as error:
                raise ConfigError([f"{shown(text)} is no sweep that can be listed: {shown(str(error))}"]) from None
        else:
            axes.append([text])
    first = [axis[0] for axis in axes]
    varied = [[*first[:i], v, *first[i + 1 :]] for i, axis in enumerate(axes) for v in axis[1:]]
    return [first, *varied]
