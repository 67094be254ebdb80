"""Outcomes of single test examples, and how much a difference depends on the choice of the examples."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdx.core.errors import DamagedError, reason
from kdx.core.notice import notice
from kdx.runs.checksums import read_checked
from kdx.runs.folder import PREDICTIONS
from kdx.runs.results import Protocol, Result

Outcomes = Mapping[int, NDArray[np.float64]]
"""By seed, a number for each test example [N], whose mean is the metric."""
NEAR = 1e-6  # between a metric and the mean of its outcomes


def example_variance(ours: Sequence[NDArray[np.float64]], theirs: Sequence[NDArray[np.float64]], paired: bool) -> float:
    """Variance of a difference of two means that comes from the choice of the test examples.

    Seeds and examples are crossed random effects. The variance of the means over seeds holds the effect of the seeds
    and the noise of single answers; the rest, the examples' own, is estimated from the means over seeds of each example
    less that noise.

    Args:
        ours, theirs: Outcomes [N] of each seed, at least two a side; for the same examples in one order.
        paired: Whether the seeds of both sides are pairs.

    Returns:
        Not negative.

    References:
        S. R. Searle, G. Casella, C. E. McCulloch. Variance Components. Wiley, 1992, chapter 4.
    """
    left, right = np.stack(ours), np.stack(theirs)
    sides = [left - right] if paired else [left, right]
    examples = left.shape[1]
    mean = left.mean(0) - right.mean(0)
    noise = sum(_noise(side) / len(side) for side in sides)
    return max(0.0, float((mean.var(ddof=1) - noise) / examples))


def _noise(outcomes: NDArray[np.float64]) -> float:
    """Variance of an outcome beyond the effects of its seed and its example."""
    rest = outcomes - outcomes.mean(1, keepdims=True) - outcomes.mean(0) + outcomes.mean()
    return float((rest**2).sum() / ((len(outcomes) - 1) * (outcomes.shape[1] - 1)))


def outcomes_of(
    ours: Mapping[int, Result], theirs: Mapping[int, Result], metric: str, protocol: Protocol
) -> tuple[Outcomes, Outcomes] | None:
    """Outcomes of the test examples for two sets of runs.

    Returns:
        None unless the metric is the test accuracy or agreement with the teacher of the last epoch, and all runs kept
        their predictions, for the same examples, and the outcomes' mean is the number that they recorded.
    """
    if protocol != "last" or metric not in KEYS or not ours or not theirs:
        return None
    read = [{seed: _read(result, metric) for seed, result in side.items()} for side in (ours, theirs)]
    labels = [of[0] for side in read for of in side.values() if of is not None]
    if len(labels) < len(ours) + len(theirs) or not all(np.array_equal(labels[0], own) for own in labels[1:]):
        return None
    left, right = ({seed: of[1] for seed, of in side.items() if of is not None} for side in read)
    return left, right


KEYS = {"test/top1": "label", "fidelity/test/agreement": "teacher/prediction"}
"""The column that a student's prediction is compared with, by metric."""


def _read(result: Result, metric: str) -> tuple[NDArray[Any], NDArray[np.float64]] | None:
    table = _table(result.folder / PREDICTIONS, ("label", "student/prediction", KEYS[metric]))
    if table is None:
        return None
    label, prediction, wanted = table
    hits = ((prediction == wanted) & (prediction >= 0)).astype(np.float64)
    value = result.metric(metric)
    return (label, hits) if value is not None and len(hits) and abs(hits.mean() - value) < NEAR else None


def _table(path: Path, names: Iterable[str]) -> list[NDArray[Any]] | None:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    if not path.exists():
        return None
    try:
        table = load(read_checked(path.parent, path.name))
    except (DamagedError, SafetensorError, ValueError, KeyError) as error:
        _tell(str(error) if isinstance(error, DamagedError) else f"{path} is damaged: {reason(error)}")
        return None
    return [table[name] for name in names] if all(name in table for name in names) else None


@cache  # once for each file, not for each metric
def _tell(damage: str) -> None:
    notice(f"{damage}; intervals leave out the choice of its test examples")
