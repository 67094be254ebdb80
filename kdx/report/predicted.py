"""Reliability and confusion, from the stored predictions of runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdx.core.errors import DamagedError, reason
from kdx.runs.checksums import read_checked
from kdx.runs.folder import PREDICTIONS

BINS = 15  # as in the metric
ROLES = ("student", "teacher")
WHOLE = 20  # maximum number of classes for the whole matrix
PAIRS = 16  # number of confusions listed instead for more classes


@dataclass(frozen=True)
class Predicted:
    """Counts over the test examples of several runs, by role.

    Attributes:
        bins: Number of examples, sum of confidences and number of correct examples per confidence bin, [3, BINS].
        confusion: Confusion matrix, labels in rows and predictions in columns, [C, C].
    """

    bins: dict[str, NDArray[np.float64]]
    confusion: dict[str, NDArray[np.int64]]

    def reliability(self) -> dict[str, list[list[float]]]:
        """Number of examples, mean confidence and accuracy of each non-empty bin, by role."""
        return {
            role: [[n, confidence / n, correct / n] for n, confidence, correct in bins.T.tolist() if n]
            for role, bins in self.bins.items()
        }

    def difference(self) -> dict[str, Any] | None:
        """Confusion matrix of the student minus that of the teacher; None without a teacher.

        Returns:
            "classes" C, and either "matrix" (shares of each label's examples, student minus teacher) or, for many
            classes, "pairs" of [label, prediction, student's share, teacher's share] with the largest
            differences.
        """
        if not set(ROLES) <= self.confusion.keys():
            return None
        ours, theirs = (self._shares(role) for role in ROLES)
        change, classes = ours - theirs, len(ours)
        if classes <= WHOLE:
            return {"classes": classes, "matrix": change.round(5).tolist()}
        mistakes = np.abs(change)
        np.fill_diagonal(mistakes, 0)
        order = np.argsort(-mistakes, axis=None, kind="stable")[:PAIRS]
        pairs = [(int(i) // classes, int(i) % classes) for i in order]
        rows = [[a, b, float(ours[a, b]), float(theirs[a, b])] for a, b in pairs if mistakes[a, b]]
        return {"classes": classes, "pairs": rows}

    def _shares(self, role: str) -> NDArray[np.float64]:
        counts = self.confusion[role]
        return counts / np.maximum(counts.sum(1, keepdims=True), 1)


def read_predicted(folders: Sequence[Path], classes: int, problems: list[str]) -> Predicted | None:
    """Counts over all runs with stored predictions; None if there are none. A role is included if all runs have it.

    Args:
        folders: The runs' directories.
        classes: Number of classes.
        problems: Gets a line for each damaged file, which is left out.
    """
    tables = []
    for folder in folders:
        if (folder / PREDICTIONS).exists():
            try:
                tables.append(_table(folder, classes))
            except DamagedError as error:
                problems.append(f"{error}; its predictions are left out")
    if not tables:
        return None
    roles = [role for role in ROLES if all(f"{role}/prediction" in table for table in tables)]
    joined = {name: np.concatenate([t[name] for t in tables]) for name in tables[0] if all(name in t for t in tables)}
    label = joined["label"]
    bins, confusion = {}, {}
    for role in roles:
        prediction, confidence = joined[f"{role}/prediction"], joined[f"{role}/confidence"].astype(np.float64)
        seen = prediction >= 0
        confusion[role] = _confusion(label[seen], prediction[seen], classes)
        bins[role] = _bins(confidence[seen], (prediction == label)[seen])
    return Predicted(bins, confusion)


def _table(folder: Path, classes: int) -> dict[str, NDArray[Any]]:
    """The stored predictions of a run. Raises DamagedError."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    content, path = read_checked(folder, PREDICTIONS), folder / PREDICTIONS
    try:
        table = load(content)
    except (SafetensorError, ValueError, KeyError) as error:
        raise DamagedError(f"{path} is damaged: {reason(error)}") from None
    labels = table.get("label")
    if labels is None or labels.ndim != 1 or any(column.shape[:1] != labels.shape for column in table.values()):
        raise DamagedError(f"{path} is damaged: it has no column of labels, or columns of other lengths")
    whole = [labels, *(column for name, column in table.items() if name.endswith("/prediction"))]
    if any(not len(column) or column.max() >= classes or column.min() < -1 for column in whole) or labels.min() < 0:
        raise DamagedError(f"{path} is damaged: it names a class outside 0 to {classes - 1}")
    return table


def _confusion(label: NDArray[Any], prediction: NDArray[Any], classes: int) -> NDArray[np.int64]:
    cell = label.astype(np.int64) * classes + prediction
    return np.bincount(cell, minlength=classes * classes).reshape(classes, classes)


def _bins(confidence: NDArray[np.float64], correct: NDArray[np.bool_]) -> NDArray[np.float64]:
    # bins are open below and closed above, as in the metric
    index = np.searchsorted(np.arange(1, BINS) / BINS, confidence, side="left")
    weights = (None, confidence, correct.astype(np.float64))
    return np.stack([np.bincount(index, weights=w, minlength=BINS).astype(np.float64) for w in weights])
