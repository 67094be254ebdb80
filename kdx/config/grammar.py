"""Overrides that are not in Hydra's grammar: one line for each."""

from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from kdx.config.layout import is_group
from kdx.core.errors import shown

UNREADABLE = (HydraException, RecursionError)


def several_options(overrides: Sequence[str]) -> list[str]:
    """A line for each group that is given a list: Hydra would merge its options one over the other."""
    problems, parser = [], OverridesParser.create()
    for override in overrides:
        key = key_of(override).split("@", 1)[0]
        if "=[" not in override or key.startswith("hydra") or not is_group(key):
            continue
        try:
            listed = isinstance(parser.parse_override(override).value(), list)
        except UNREADABLE:
            continue  # reported by `split_readable`
        if listed:
            words = override.split("=", 1)[1].strip().strip("[]")
            problems.append(
                f"{key} takes one option, found {shown(override)}; a sweep is written -m {key}={shown(words)}"
            )
    return problems


def split_readable(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """The overrides that are in Hydra's grammar, and a line for each other one."""
    readable, problems = [], []
    parser = OverridesParser.create()
    for override in _without_spaced_signs(overrides, problems):
        try:
            parser.parse_override(override)
            readable.append(override)
        except UNREADABLE as error:
            problems.append(_unreadable(override, error))
    return readable, problems


def key_of(override: str) -> str:
    """The key of an override, without its sign.

    Example:
        >>> key_of("+optimizer.lr=0.1")
        'optimizer.lr'
    """
    return override.split("=", 1)[0].lstrip("+~")


def _without_spaced_signs(overrides: Sequence[str], problems: list[str]) -> list[str]:
    """The overrides without those that the shell split at spaces around the equals sign."""
    kept = list(overrides)
    while "=" in kept:
        at = kept.index("=")
        left, right = "".join(kept[max(at - 1, 0) : at]), "".join(kept[at + 1 : at + 2])
        left, right = shown(left), shown(right)
        problems.append(f"cannot read '{left} = {right}'; write it without spaces: {left}={right}")
        del kept[max(at - 1, 0) : at + 2]
    return kept


def _unreadable(override: str, error: Exception) -> str:
    key, sign, value = override.partition("=")
    given, key = shown(override), shown(key)
    if isinstance(error, RecursionError):
        return f"cannot read '{given}'; its brackets are nested too deeply"
    if override.endswith("\r"):
        return f"'{given}' ends with a carriage return, as in Windows scripts; convert the script to Unix line ends"
    if not sign:
        return f"cannot read '{given}'; a setting is written key=value"
    if not value.isascii() and not set(value) & set("'\"[]{}()"):
        return f"cannot read '{given}'; letters outside ASCII need quotes inside quotes: '{key}=\"{shown(value)}\"'"
    if "=" in value:
        inner = value.strip("[]").replace("'", "").replace('"', "")
        parts = [part.strip() for part in inner.split(",")]
        if not value.startswith("[") or not all("=" in part for part in parts):
            parts = [inner]
        quoted = ",".join(f'"{part}"' for part in parts)
        hint = f"'{key}=[{shown(quoted)}]'" if value.startswith("[") else f"'{key}={shown(quoted)}'"
        return f"cannot read '{given}'; a value with an equals sign needs quotes inside quotes: {hint}"
    return f"cannot read '{given}'; a value with brackets, commas, quotes or spaces of its own needs quotes"
