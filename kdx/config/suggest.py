"""Suggests keys in place of one that does not exist."""

from difflib import get_close_matches
from typing import Any

from omegaconf import DictConfig, OmegaConf

from kdx.config.layout import ROLES, is_group
from kdx.core.errors import some


def suggest(key: str, cfg: DictConfig) -> str:
    """A hint for a key that does not exist: the keys that are close to it, or those of its node."""
    top = key.split(".")[0]
    if not _trains(cfg) and top not in cfg and (is_group(top) or top in ("seed", "data_seed")):
        return "; it is a key of the study's runs, not of the study: see overrides in kdx study --help"
    if key == "model":
        return "; a network is chosen with student=NAME and teacher=NAME"
    paths = [p for p in key_paths(cfg, "") if not p.rpartition(".")[2].startswith("_")]
    paths = [p for p in paths if (p.split(".")[0] == "hydra") == (top == "hydra")]
    if same := [path for path in paths if path.lower() == key.lower()]:
        return f"; did you mean {same[0]!r}?"
    base, wrong, beyond = _deepest(key, set(paths))
    siblings = [p[len(base) :].lstrip(".") for p in paths if p.rpartition(".")[0] == base]
    close = [f"{base}.{name}" if base else name for name in get_close_matches(wrong, siblings, n=1)]
    meant = [f"{p}{beyond}" if f"{p}{beyond}" in paths else p for p in close]
    if not meant:
        last = key.rpartition(".")[2]
        names = {p.rpartition(".")[2] for p in paths}
        same = last if last in names else next(iter(get_close_matches(last, names, n=1, cutoff=0.8)), None)
        meant = sorted((p for p in paths if p.rpartition(".")[2] == same), key=len)[:3]
    if meant:
        return f"; did you mean {' or '.join(map(repr, meant))}?"
    return f"; {f'{base} has' if base else 'known'}: {some(list(dict.fromkeys(siblings)))}" if siblings else ""


def _deepest(key: str, paths: set[str]) -> tuple[str, str, str]:
    """The part of a key that exists, the first segment that does not, and the rest."""
    segments = key.split(".")
    depth = next((d for d in range(len(segments)) if ".".join(segments[: d + 1]) not in paths), len(segments) - 1)
    rest = segments[depth + 1 :]
    return ".".join(segments[:depth]), segments[depth], "".join(f".{s}" for s in rest)


def key_paths(node: Any, prefix: str) -> list[str]:
    """Paths of all keys of a node, also of those that its config lacks and a command accepts."""
    if not isinstance(node, DictConfig):
        return []
    found: list[str] = []
    for name in map(str, node):
        path = f"{prefix}{name}"
        found.append(path)
        if not OmegaConf.is_missing(node, name) and not OmegaConf.is_interpolation(node, name):
            found += key_paths(node[name], f"{path}.")
    if prefix or not _trains(node):
        return found
    return [*found, *(g for g in ("experiment", "debug", "recipe", *ROLES) if g not in found)]


def _trains(cfg: DictConfig) -> bool:
    """Whether a config is that of a training, not of a study."""
    return "dataset" in cfg
