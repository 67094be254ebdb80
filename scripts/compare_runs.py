"""Outputs of runs for `compare.py`, read without the package that wrote them, and their first difference."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

ABSENT = "absent"


@dataclass(frozen=True)
class Run:
    """The compared outputs of a run."""

    title: str
    lines: Sequence[Mapping[str, Any]]
    tensors: Mapping[str, np.ndarray]
    metrics: Mapping[str, Any]


def first_difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> str | None:
    """The first key with different values, and both values; None if all are equal in bits and types."""
    for key in [*before, *(key for key in after if key not in before)]:
        old, new = (repr(side[key]) if key in side else ABSENT for side in (before, after))
        if old != new:  # the repr of a float has all its bits, including the sign of zero
            return f"{key}: {old} -> {new}"
    return None


def line_difference(before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]) -> str | None:
    """The first difference of two sequences of metric lines."""
    for number, (old, new) in enumerate(zip(before, after, strict=False), 1):
        if found := first_difference(old, new):
            return f"line {number}, {found}"
    return None if len(before) == len(after) else f"number of lines: {len(before)} -> {len(after)}"


def tensor_difference(before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray]) -> str | None:
    """The first difference of two sets of tensors, bit by bit."""
    forms = ({name: (str(t.dtype), t.shape) for name, t in side.items()} for side in (before, after))
    if found := first_difference(*forms):
        return f"tensor {found}"
    for name, tensor in before.items():
        old, new = tensor.reshape(-1), after[name].reshape(-1)
        apart = (_bits(old) != _bits(new)).any(axis=1)
        if apart.any():
            place = int(apart.argmax())
            where = [int(i) for i in np.unravel_index(place, tensor.shape)]
            return (
                f"tensor {name}{where}: {old[place]!r} -> {new[place]!r}, {apart.sum()} of {len(apart)} numbers differ"
            )
    return None


def _bits(flat: np.ndarray) -> np.ndarray:
    return np.frombuffer(flat.tobytes(), np.uint8).reshape(len(flat), flat.itemsize)


def run_difference(before: Run, after: Run) -> str | None:
    """The first difference of two runs, in the order of training."""
    return (
        line_difference(before.lines, after.lines)
        or tensor_difference(before.tensors, after.tensors)
        or first_difference(before.metrics, after.metrics)
    )


def difference(before: Mapping[str, Run], after: Mapping[str, Run]) -> str | None:
    """The first difference over all runs of a case, paired by title, in the order in which they finished."""
    if not before and not after:
        return "no run is found on either side"
    for title in [*before, *(title for title in after if title not in before)]:
        if title not in before or title not in after:
            return f"{title}: only {'after' if title in after else 'before'}"
        if found := run_difference(before[title], after[title]):
            return f"{title}: {found}"
    return None


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested metrics, by path."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flat(value, f"{prefix}{key}/") if isinstance(value, Mapping) else {prefix + key: value}
    return found


def compared(line: Mapping[str, Any], without: Sequence[str]) -> dict[str, Any]:
    """The metrics of a line, except times and those with one of some words in their name."""
    return {
        key: value
        for key, value in line.items()
        if not key.startswith("time/") and not any(word in key for word in without)
    }


def read_run(folder: Path, without: Sequence[str] = ()) -> Run:
    """Read a finished run. Its title is the folder's kind, method and seed, since hashes in names may change."""
    result = json.loads((folder / "result.json").read_text())
    return Run(
        title=f"{folder.parent.name}: method={result['choices']['method']} seed={result['seed']}",
        lines=[compared(json.loads(line), without) for line in (folder / "metrics.jsonl").read_text().splitlines()],
        tensors=load_file(folder / "student.safetensors"),
        metrics={f"result, {key}": value for key, value in compared(flat(result["metrics"]), without).items()},
    )


def read_runs(outputs: Path, without: Sequence[str] = ()) -> dict[str, Run]:
    """The runs below a folder in the order in which they finished; runs of equal title are numbered in that order."""
    found: dict[str, Run] = {}
    seen: Counter[str] = Counter()
    for path in sorted(outputs.rglob("result.json"), key=lambda p: p.stat().st_mtime_ns):
        run = read_run(path.parent, without)
        seen[run.title] += 1
        found[run.title if seen[run.title] == 1 else f"{run.title} #{seen[run.title]}"] = run
    return found
