"""What several seeds say together."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Summary:
    """Mean and spread of n numbers.

    Attributes:
        mean: Arithmetic mean.
        std: Sample standard deviation (n - 1); NaN for a single number, of which it says nothing.
        n: How many numbers.
    """

    mean: float
    std: float
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Summary":
        """Summarise. Raises ValueError where there is nothing to summarise."""
        if not values:
            raise ValueError("a mean needs at least one number")
        mean = math.fsum(values) / len(values)
        if len(values) == 1:
            return cls(mean, math.nan, 1)
        variance = math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1)
        return cls(mean, math.sqrt(variance), len(values))

    def show(self, scale: float, digits: int) -> str:
        """ "97.07 ± 0.15", or "97.07" for a single number."""
        if math.isnan(self.std):
            return f"{self.mean * scale:.{digits}f}"
        return f"{self.mean * scale:.{digits}f} ± {self.std * scale:.{digits}f}"


def paired_gain(values: Sequence[float], baseline: Sequence[float]) -> Summary:
    """Differences seed by seed, which cancels what a seed does to both sides."""
    return Summary.of([v - b for v, b in zip(values, baseline, strict=True)])
