"""How a metric is named, written and judged; each says it once, where it is computed."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from typing import Any, Literal

Better = Literal["higher", "lower"]
PERCENT = "%"  # of a fraction: shown times 100


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A measured number.

    Attributes:
        name: "top1", for every "SPLIT/top1" and "ROLE/SPLIT/top1"; or a full name, in which "*" stands for any part:
            "derivatives/*/rmse".
        label: For people: "top-1".
        unit: Written behind the label; "%" marks a fraction, which is shown as a percentage.
        digits: Digits after the point, of the number as it is shown.
        better: Which way is better; None for neither.
        shown: Whether it belongs to the main numbers, which terminals and reports show first.
    """

    name: str
    label: str
    unit: str = ""
    digits: int = 4
    better: Better | None = None
    shown: bool = False

    @property
    def heading(self) -> str:
        """Label and unit."""
        return f"{self.label} {self.unit}".rstrip()

    @property
    def scale(self) -> float:
        """Factor from the stored number to the shown one."""
        return 100 if self.unit == PERCENT else 1

    @property
    def sign(self) -> int:
        """1 where higher is better, -1 where lower is, 0 for neither."""
        return {"higher": 1, "lower": -1, None: 0}[self.better]

    def beats(self, value: float, other: float) -> bool:
        """Whether a value is better than another. Never for a metric without a direction, nor for NaN.

        Example:
            >>> Metric(name="nll", label="NLL", better="lower").beats(0.1, 0.2)
            True
        """
        return self.sign * value > self.sign * other

    def show(self, value: float) -> str:
        """A value as people read it, without its unit.

        Example:
            >>> Metric(name="top1", label="top-1", unit="%", digits=2).show(0.98765)
            '98.77'
        """
        return f"{value * self.scale:.{self.digits}f}"

    def record(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


class Catalogue:
    """Looks up how measured numbers are shown.

    Args:
        metrics: The known metrics. Of several that fit a name, the longest pattern counts, then the first.

    Example:
        >>> known = Catalogue([Metric(name="top1", label="top-1", unit="%", digits=2, better="higher")])
        >>> known["teacher/test/top1"].heading, known["other"].heading
        ("its teacher's top-1 %", 'other')
    """

    def __init__(self, metrics: Iterable[Metric]):
        unique: dict[str, Metric] = {}
        for metric in metrics:
            unique.setdefault(metric.name, metric)
        self.metrics: Sequence[Metric] = tuple(unique.values())
        self._patterns = sorted((m for m in self.metrics if "/" in m.name), key=lambda m: -len(m.name))
        self._short = {m.name: m for m in self.metrics if "/" not in m.name}

    def known(self, name: str) -> bool:
        """Whether some metric has this name."""
        return self._find(name) is not None

    def in_full(self, name: str) -> bool:
        """Whether some metric states this full name, rather than a short one that every role and split shares."""
        return any(fnmatchcase(name, metric.name) for metric in self._patterns)

    def __getitem__(self, name: str) -> Metric:
        """The metric of a full name, its label qualified by role and split; a plain number where none is known."""
        return self._find(name) or Metric(name=name, label=name)

    def _find(self, name: str) -> Metric | None:
        for metric in self._patterns:
            if fnmatchcase(name, metric.name):
                return replace(metric, name=name, label=_qualified(metric.label, _split_of(name, metric.name), []))
        *path, short = name.split("/")
        if short not in self._short:
            return None
        metric = self._short[short]
        roles, split = path[:-1], path[-1] if path else ""
        return replace(metric, name=name, label=_qualified(metric.label, split, roles))


def _split_of(name: str, pattern: str) -> str:
    """The first part of a name that a pattern leaves open."""
    return next((n for n, p in zip(name.split("/"), pattern.split("/"), strict=False) if p == "*"), "")


def _qualified(label: str, split: str, roles: Sequence[str]) -> str:
    for role in roles:
        told = "its teacher's" if role == "teacher" else re.sub(r"(\D)(\d+)$", r"\1 \2", role)
        label = label if role == "student" else f"{told} {label}"
    return {"val": f"validation {label}", "train": f"{label} on training set"}.get(split, label)
