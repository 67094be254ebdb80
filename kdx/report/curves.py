"""Training curves of runs, subsampled and averaged over seeds."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kdx.core.errors import DamagedError
from kdx.runs.checksums import read_checked
from kdx.runs.folder import RECORD

POINTS = 80  # maximum number of points per curve
NO_CURVES = ("step", "epoch", "time/seconds", "time/examples_per_second")
Line = dict[str, float | None]
# epochs, mean, std (None for a single run)
Curve = tuple[list[float], list[float], list[float | None]]


def read_curves(folder: Path) -> list[Line]:
    """Read the record of a run, evenly subsampled before parsing; empty if the file is missing.

    Training lines and evaluation lines are subsampled separately, so that both are kept.

    Raises:
        DamagedError: The record is damaged.
    """
    path = folder / RECORD
    if not path.exists():
        return []
    training: list[bytes] = []
    evaluated: list[bytes] = []
    for line in read_checked(folder, RECORD).splitlines():
        (evaluated if b'"test/' in line or b'"val/' in line else training).append(line)
    try:
        # parsing one list is twice as fast as parsing each line
        lines: list[Line] = json.loads(b"[" + b",".join((*_thin(training), *_thin(evaluated))) + b"]")
        return sorted(lines, key=_checked_step)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise DamagedError(f"{path} is damaged: a line is no event") from None


def _checked_step(line: Line) -> float:
    step, _ = line["step"], line["epoch"]
    if not all(value is None or isinstance(value, int | float) for value in line.values()):
        raise TypeError
    return step or 0.0


def mean_curves(runs: Sequence[Sequence[Line]]) -> dict[str, Curve]:
    """Mean and standard deviation of each metric over runs, at the steps that all runs recorded."""
    # step -> (value, epoch), by metric and run
    tracks: dict[str, list[dict[float, tuple[float, float]]]] = {}
    runs = [run for run in runs if run]
    for place, run in enumerate(runs):
        for line in run:
            step, epoch = line["step"], line["epoch"]
            for name, value in line.items():
                if name in NO_CURVES or value is None or step is None or epoch is None:
                    continue
                tracks.setdefault(name, [{} for _ in runs])[place][step] = value, epoch
    curves = {}
    for name, by_run in tracks.items():
        steps = sorted(set(by_run[0]).intersection(*by_run[1:]))
        if len(steps) < 2:
            continue
        values = np.array([[track[step][0] for step in steps] for track in by_run])
        std = values.std(0, ddof=1).tolist() if len(values) > 1 else [None] * len(steps)
        curves[name] = [by_run[0][step][1] for step in steps], values.mean(0).tolist(), std
    return curves


def _thin(lines: Sequence[bytes]) -> Sequence[bytes]:
    """Subsample to at most POINTS evenly spaced lines, including the last one."""
    if len(lines) <= POINTS:
        return lines
    return [lines[-1 - i * (len(lines) - 1) // (POINTS - 1)] for i in range(POINTS)]
