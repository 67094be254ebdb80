"""What a command asks of a study."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from kdx.core.errors import UserError, did_you_mean
from kdx.core.ranges import PositiveInt


@dataclass(frozen=True, kw_only=True)
class Options:
    """The part of a study's config that is no part of the study.

    Attributes:
        fresh: Whether finished runs are run over.
        scale: Preset of the study to run at; None for its first one.
        only: "render" shows what there is and runs nothing; None runs what is missing.
        jobs: Processes at a time, each with its share of the threads.
        fused: Whether runs that share data, their order, augmentation and teacher train together in one process.
        fused_limit: Most runs that do.
        retry: "failed" runs failed runs again; None leaves them and reports them.
        rows: Rows to run, as names or patterns such as "KD*"; None for all. The others are shown as they are.
        columns: Columns to run, likewise.
        overrides: Overrides of every run, after the study's own.
    """

    fresh: bool
    scale: str | None
    only: Literal["render"] | None
    jobs: PositiveInt
    fused: bool
    fused_limit: PositiveInt
    retry: Literal["failed"] | None
    rows: Sequence[str] | None
    columns: Sequence[str] | None
    overrides: Sequence[str]

    @property
    def together(self) -> int:
        """Most runs that train together."""
        return self.fused_limit if self.fused else 1

    def place(self, paths: Mapping[str, str]) -> list[str]:
        """Overrides that put a run where the study's command says, and start it over where that is asked."""
        return [*located(paths), f"fresh={str(self.fresh).lower()}"]


def located(paths: Mapping[str, str]) -> list[str]:
    """Overrides that give a run the paths of its study."""
    return [f"paths.{key}={value}" for key, value in paths.items()]


def select(patterns: Sequence[str] | None, names: Sequence[str], key: str) -> list[str]:
    """The names that one of the patterns matches, in their own order.

    Raises:
        UserError: A pattern matches none.
    """
    if patterns is None:
        return list(names)
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise UserError(f"{key}: nothing is called '{pattern}'{did_you_mean(pattern, names)}")
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]
