"""Options of `kdx study`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from kdx.config.identity import left_out
from kdx.core.errors import UserError, did_you_mean
from kdx.core.ranges import PositiveInt
from kdx.tables.sequential import Seeds

# options that a study may leave out, see `Study.accepts`
NARROWING = ("scale", "rows", "columns", "seeds")


@dataclass(frozen=True, kw_only=True)
class Options:
    """The keys of a study's config besides the study and the paths.

    Attributes:
        fresh: Whether to train finished runs again.
        reuse: Whether to use finished and unfinished runs even if their data or the user's modules changed since.
        scale: Preset of the study; None for its first one.
        only: "render" writes the results from finished runs and trains nothing; None trains what is missing.
        jobs: Processes at a time, each with its share of the threads.
        fused: Whether runs with the same data, augmentation and teacher train together in one process.
        fused_limit: Maximum number of runs in such a process.
        retry: "failed" trains failed runs again; None reports them.
        rows: Rows to run, as names or patterns such as "KD*"; None for all.
        columns: Columns to run, likewise.
        seeds: When a comparison has enough seeds; None for the seeds that the study lists.
        overrides: Overrides of every run, after the study's own.
    """

    fresh: bool
    reuse: bool
    scale: str | None
    only: Literal["render"] | None
    jobs: PositiveInt
    fused: bool
    fused_limit: PositiveInt
    retry: Literal["failed"] | None
    rows: Sequence[str] | None
    columns: Sequence[str] | None
    seeds: Seeds | None
    overrides: Sequence[str]

    def __post_init__(self):
        if isinstance(self.seeds, Mapping):  # a config holds it as a plain mapping
            object.__setattr__(self, "seeds", Seeds(**self.seeds))

    @property
    def together(self) -> int:
        """Maximum number of runs that train together in one process."""
        return self.fused_limit if self.fused else 1

    def place(self, paths: Mapping[str, str]) -> list[str]:
        """Overrides that give a run the study's paths and its `fresh` and `reuse`."""
        return [*located(paths), f"fresh={str(self.fresh).lower()}", f"reuse={str(self.reuse).lower()}"]


def located(paths: Mapping[str, str]) -> list[str]:
    """Overrides that give a run the study's paths."""
    return [f"paths.{key}={value}" for key, value in paths.items()]


def changing(overrides: Sequence[str]) -> list[str]:
    """The overrides that change a run, out of a command's; others set paths, devices and so on.

    Example:
        >>> changing(["trainer.device=cpu", "~method.weights.ce", "seed=1"])
        ['~method.weights.ce', 'seed=1']
    """
    return [override for override in overrides if not left_out(override.lstrip("+~").split("=", 1)[0])]


def select(patterns: Sequence[str] | None, names: Sequence[str], key: str) -> list[str]:
    """The names that match a pattern, in the order of the names.

    Raises:
        UserError: A pattern matches no name.
    """
    if patterns is None:
        return list(names)
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise UserError(f"{key}: no name matches '{pattern}'{did_you_mean(pattern, names)}")
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]
