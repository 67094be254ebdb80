"""Name, unit, format and direction of a metric; defined once, beside the class that computes it."""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from decimal import ROUND_HALF_UP, Decimal
from fnmatch import fnmatchcase
from typing import Any, Literal

Better = Literal["higher", "lower"]
EXACT = 1e15  # below, numbers are rounded exactly
PERCENT = "%"  # of a fraction: shown times 100


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A measured number.

    Attributes:
        name: A short name such as "top1", for every "SPLIT/top1" and "ROLE/SPLIT/top1"; or a full name in which "*"
            stands for any part, such as "derivatives/*/rmse".
        label: Name for people: "top-1".
        unit: Unit after the label; "%" marks a fraction, which is shown as a percentage.
        digits: Digits after the decimal point of the shown number.
        better: Direction of improvement; None for neither.
        shown: Whether terminals and reports show it among the main metrics.
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
    def directed(self) -> str:
        """The heading and an arrow towards better numbers.

        Example:
            >>> Metric(name="ece", label="ECE", unit="%", better="lower").directed
            'ECE % ↓'
        """
        return self.heading + {"higher": " ↑", "lower": " ↓", None: ""}[self.better]

    @property
    def scale(self) -> float:
        """Factor from the stored number to the shown one."""
        return 100 if self.unit == PERCENT else 1

    @property
    def sign(self) -> int:
        """1 if higher is better, -1 if lower is better, 0 for neither."""
        return {"higher": 1, "lower": -1, None: 0}[self.better]

    def beats(self, value: float, other: float) -> bool:
        """Whether a value is better than another; False for a metric without a direction, and for NaN.

        Example:
            >>> Metric(name="nll", label="NLL", better="lower").beats(0.1, 0.2)
            True
        """
        return self.sign * value > self.sign * other

    def show(self, value: float) -> str:
        """A value formatted for people, without its unit.

        Example:
            >>> Metric(name="top1", label="top-1", unit="%", digits=2).show(0.98765)
            '98.77'
        """
        return fixed(value, self.digits, self.scale)

    def record(self) -> dict[str, Any]:
        """The attributes as JSON values."""
        return asdict(self)


def short(value: float) -> float:
    """Round to nine significant digits, all that a page carries, so that tables and pages round the same number.

    Example:
        >>> short(0.1234567891234)
        0.123456789
    """
    return float(f"{value:.9g}")


def fixed(value: float, digits: int, scale: float = 1.0, sign: bool = False) -> str:
    """A number with a fixed number of decimals, rounded half away from zero; zero has no sign.

    Args:
        value: The number.
        digits: Digits after the decimal point.
        scale: Factor from the stored number to the shown one.
        sign: Whether a positive number has a sign too.

    Example:
        >>> fixed(-0.00001, 2), fixed(0.125, 2), fixed(0.0012, 2, scale=100, sign=True)
        ('0.00', '0.13', '+0.12')
    """
    value = short(value) * scale
    if not math.isfinite(value) or abs(value) >= EXACT:
        return f"{value:.{digits}f}"
    text = str(Decimal(abs(value)).quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP))
    if not text.strip("0."):
        return text
    return f"-{text}" if value < 0 else f"+{text}" if sign else text


def digits_of(spread: float, most: int) -> int:
    """Decimals that show two digits of a spread, at most `most`; `most` where there is no spread.

    Example:
        >>> digits_of(9.99, 2), digits_of(0.4, 2), digits_of(0.0, 2)
        (1, 2, 2)
    """
    spread = short(spread)
    if not math.isfinite(spread) or spread <= 0:
        return most
    return min(most, max(0, 1 - math.floor(math.log10(spread))))


class Catalogue:
    """Looks up the `Metric` of a measurement by its full name.

    Args:
        metrics: The known metrics. If several match a name, the longest pattern is used, then the first.

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
        """The metric of a full name, its label qualified by role and split; a default metric if the name is unknown."""
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
    """The part of a name that matches the first "*" of a pattern."""
    return next((n for n, p in zip(name.split("/"), pattern.split("/"), strict=False) if p == "*"), "")


def _qualified(label: str, split: str, roles: Sequence[str]) -> str:
    for role in roles:
        told = "its teacher's" if role == "teacher" else re.sub(r"(\D)(\d+)$", r"\1 \2", role)
        label = label if role == "student" else f"{told} {label}"
    return {"val": f"validation {label}", "train": f"{label} on training set"}.get(split, label)
