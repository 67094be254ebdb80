"""Finds the wrong overrides of a command, and suggests corrections: one line for each error."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from hydra import compose as hydra_compose
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from kdx.config.grammar import key_of, split_readable
from kdx.config.layout import is_group, options
from kdx.config.suggest import key_paths, suggest
from kdx.core.errors import closest, did_you_mean, shown, some

# errors of Hydra: ValueError for a group set to null, OSError for a key that is too long for the name of a file, the
# others for values that Hydra takes apart
COMPOSE_ERRORS = (
    HydraException,
    OmegaConfBaseException,
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    RecursionError,
    OSError,
)


@dataclass(frozen=True)
class Diagnosis:
    """Errors of a list of overrides.

    Attributes:
        problems: A line for each error.
        rest: Overrides that compose, with the closest option in place of a misspelt one, for a search for further
            errors; None if a wrong option leaves open which keys exist.
    """

    problems: list[str]
    rest: list[str] | None


def diagnose(overrides: Sequence[str], config_name: str, error: Exception) -> Diagnosis:
    """Try overrides one by one. Hydra must be initialised.

    Args:
        overrides: Overrides that do not compose together.
        config_name: A file at the top of `configs/`.
        error: The error that composing them together raised.
    """
    readable, problems = split_readable(overrides)
    # group choices first: they determine which keys exist
    choosing = [o for o in readable if is_group(key_of(o).split("@", 1)[0])]
    good, known, again = _choose(config_name, choosing, problems)
    if not known:
        return Diagnosis(problems, None)
    wrong = _sift(config_name, good, [*again, *(o for o in readable if o not in choosing)])
    cfg = hydra_compose(config_name, good, return_hydra_config=True) if wrong else None
    problems += [explain(found, override, cfg) for override, found in wrong]
    return Diagnosis(problems or [explain(error, "", None)], good)


def _sift(config_name: str, good: list[str], candidates: Sequence[str]) -> list[tuple[str, Exception]]:
    """Append the candidates that compose to `good`, and return the others, each with its error."""
    try:
        hydra_compose(config_name, [*good, *candidates])
    except COMPOSE_ERRORS as error:
        if len(candidates) == 1:
            return [(candidates[0], error)]
        # bisect, since few of many are wrong and composing is slow
        half = len(candidates) // 2
        left = _sift(config_name, good, candidates[:half])
        return left + _sift(config_name, good, candidates[half:])
    good += candidates
    return []


def _choose(config_name: str, choosing: Sequence[str], problems: list[str]) -> tuple[list[str], bool, list[str]]:
    """The group choices that compose, whether each other one has a close match, and choices to retry later."""
    good: list[str] = []
    again: list[str] = []
    known = True
    for override in choosing:
        try:
            hydra_compose(config_name, [*good, override])
            good.append(override)
        except COMPOSE_ERRORS as found:
            group, name = _not_found(found)
            # a folder that is not an option, or a data set without the recipe that another choice names
            if "Could not override" in str(found) or (group is not None and group != key_of(override)):
                again.append(override)
                continue
            problems.append(explain(found, override, None))
            close = closest(name, options(key_of(override))) if group is not None else None
            good += [f"{key_of(override)}={close}"] if close else []
            known = known and bool(close)
    return good, known, again


INPUTS = {
    "dataset.input_shape": "; this network reads images or vectors, and the data set has texts",
    "dataset.tokenizer": "; this network reads texts, and the data set has none",
}
"""Explanations of keys that only some data sets have."""


def explain(error: Exception, override: str, cfg: DictConfig | None) -> str:
    """One line for an error of Hydra or OmegaConf.

    Args:
        error: The error that composing raised.
        override: The override that caused it; empty if unknown.
        cfg: The config without that override, with Hydra's node, for suggestions.
    """
    text, given = str(error), shown(override)
    key = key_of(override)
    group, name = _not_found(error)
    if group is not None and override and group != key:
        return f"{given} needs {shown(group)}={shown(name)}, which does not exist; choose one: {some(options(group))}"
    if group is not None and name:
        return f"unknown {shown(group)} '{shown(name)}'{did_you_mean(name, _known(error, group))}"
    if group is not None:
        return _choose_one(group)
    if "Config group override must be a string" in text and override:
        return _choose_one(key)
    if "Ambiguous value for argument" in text:
        return f"'{given}' gives several values: a sweep needs -m, a list is written {shown(key)}=[a,b]"
    if found := re.search(r"Interpolation key '([^']+)' not found", text):
        where = given or _full_key(text)
        hint = next((text for key, text in INPUTS.items() if found[1].startswith(key)), "")
        return f"'{where}' refers to '{shown(found[1])}', which does not exist in this config{hint}"
    if found := re.search(r"You must specify '([^']+)'", text):
        return _choose_one(found[1])
    unknown = r"is not in struct|Could not override|Could not delete|Could not append"
    if override.startswith("+") and not override.startswith("++") and cfg is not None and key in key_paths(cfg, ""):
        return f"'{given}' adds a key that exists; write {shown(override[1:])}"
    if re.search(unknown, text) and override and cfg is not None:
        inside = re.search(r"Key '([^']+)' is not in struct", f"{text} {error.__cause__}")
        if inside and key in key_paths(cfg, ""):  # the value is a mapping with a key that the node lacks
            key = f"{key}.{inside[1]}"
        return f"unknown key '{shown(key)}'{suggest(key, cfg)}"
    if isinstance(error, RecursionError):
        return f"{given or 'the config'}: values are nested too deeply, or refer to themselves"
    if "Missing mandatory value" in text:
        return f"{given or _full_key(text)}: a value is missing"
    if isinstance(error, OSError) and override:
        return f"cannot read '{given}': {error.strerror}"
    if "invalid literal for int()" in text and override:
        return f"{given}: {shown(key.rpartition('.')[0])} is a list; set the whole list: [a,b]"
    first = shown(text.strip().splitlines()[0] if text.strip() else type(error).__name__, 160)
    where = given or _full_key(text)
    return f"{where}: {first}" if where else first


def _full_key(text: str) -> str:
    """The key that an error of OmegaConf reports; empty if it reports none."""
    where = re.search(r"full_key: (\S+)", text)
    return shown(where[1]) if where else ""


def _choose_one(group: str) -> str:
    return f"{shown(group)} takes one of its options: {some(options(group.split('@')[0]))}"


def _known(error: Exception, group: str) -> Sequence[str]:
    """Options of a group; those of Hydra's groups also come from Hydra and its plugins."""
    if group.startswith("hydra/") and isinstance(error, MissingConfigException):
        return error.options or []
    return options(group)


def _not_found(error: Exception) -> tuple[str | None, str]:
    """Group and name of the missing option, if the error reports one; else None and an empty name."""
    found = re.search(r"Could not find '([^']*)'", str(error))
    if found is None:
        return None, ""
    parts = found[1].split("/")
    # the first folder is the group: options may lie in subfolders, as experiments do
    depth = 2 if parts[0] in ("hydra",) else 1
    return "/".join(parts[:depth]), "/".join(parts[depth:])
