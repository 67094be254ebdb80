"""Average precision of detections, as the COCO benchmark defines it.

Detections [B, D, 6] are rows (x1, y1, x2, y2, score, class), truth [B, N, 8] rows (x1, y1, x2, y2, class, crowd, area,
number of the image), both in pixels of the original image; a class of -1 marks padding.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kdx.core.metric import Metric
from kdx.metrics.base import StreamingMetric

THRESHOLDS = np.linspace(0.5, 0.95, 10)
"""Least intersection over union of a match."""
RECALLS = np.linspace(0.0, 1.0, 101)
"""Points at which precision is read."""
AREAS = {"": (0.0, 1e10), "_small": (0.0, 32.0**2), "_medium": (32.0**2, 96.0**2), "_large": (96.0**2, 1e10)}
"""Ranges of an object's area in pixels, by suffix of the metric."""
ROWS = len(AREAS) * len(THRESHOLDS)
MOST = 100
"""Detections of a class in an image that count, those with the highest scores."""

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def overlaps(boxes: Floats, others: Floats, crowd: Bools) -> Floats:
    """Intersection over union of boxes [D, 4] and others [N, 4], float64 [D, N].

    For an other that is a crowd it is the share of the box that lies in it.

    Example:
        >>> box, crowd = np.array([[0.0, 0.0, 2.0, 2.0]]), np.array([[0.0, 0.0, 1.0, 8.0]])
        >>> overlaps(box, crowd, np.array([False])), overlaps(box, crowd, np.array([True]))
        (array([[0.2]]), array([[0.5]]))
    """
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    inside = np.clip(high - low, 0, None).prod(2)
    mine, theirs = ((b[:, 2:] - b[:, :2]).prod(1) for b in (boxes, others))
    union = np.where(crowd[None], mine[:, None], mine[:, None] + theirs[None] - inside)
    return np.divide(inside, union, out=np.zeros_like(inside), where=union > 0)


def matched(iou: Floats, crowd: Bools, ignored: Bools) -> tuple[Bools, Bools]:
    """Match detections of one class in one image, in descending order of score, with objects.

    A detection takes the free object with the highest overlap, at equal overlaps the last; ignored objects only if no
    other is left. A crowd can be taken any number of times.

    Args:
        iou: [D, N], see `overlaps`.
        crowd: [N].
        ignored: Objects that are ignored, for each range of areas, [A, N].

    Returns:
        For each range, threshold and detection, [A, T, D]: whether it took an object, and whether an ignored one.

    Example:
        >>> hit, out = matched(np.array([[0.6], [0.55]]), np.array([False]), np.array([[False]]))
        >>> hit[0].sum(0).tolist()  # at 3 of the 10 thresholds the first takes the object, so the second has none
        [3, 0]
    """
    areas, count = len(ignored), len(THRESHOLDS)
    hit, out = np.zeros((2, areas, count, len(iou)), dtype=bool)
    if not iou.size:
        return hit, out
    least = np.minimum(THRESHOLDS, 1 - 1e-10)
    taken = np.zeros((areas, count, iou.shape[1]), dtype=bool)
    for d in np.flatnonzero(iou.max(1) >= least[0]):
        able = (iou[d] >= least[:, None]) & (~taken | crowd)
        wanted = able & ~ignored[:, None]
        able = np.where(wanted.any(2, keepdims=True), wanted, able)
        # the last of equal overlaps, as in pycocotools
        best = iou.shape[1] - 1 - np.where(able, iou[d], -1.0)[..., ::-1].argmax(2)
        hit[..., d] = able.any(2)
        out[..., d] = hit[..., d] & np.take_along_axis(ignored, best, 1)
        np.put_along_axis(taken, best[..., None], np.take_along_axis(taken, best[..., None], 2) | hit[..., d, None], 2)
    return hit, out


def interpolated(hit: Bools, positives: float) -> float:
    """Mean over 101 recalls of the highest precision at that recall or more; 0 beyond the reached recall.

    Args:
        hit: Whether each detection is right, in descending order of score.
        positives: Number of objects.

    Example:
        >>> round(interpolated(np.array([True, False, True]), 2), 4)
        0.835
    """
    right = hit.cumsum()
    precision = right / np.arange(1, len(hit) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    places = np.searchsorted(right / positives, RECALLS, side="left")
    return float(np.append(envelope, 0.0)[places].mean())


class AveragePrecision(StreamingMetric):
    """AP over ten thresholds, at 0.5 and at 0.75, of small, medium and large objects and of each class.

    It equals pycocotools. Matches are kept for each detection, 80 bytes, and ordered by score when they are read, equal
    scores by the image's number; so the order of batches and their division among processes do not matter. A number
    without objects, such as AP of large ones where there are none, is left out; "ap" alone is NaN then.

    Args:
        classes: Name of each class.

    References:
        Lin et al., "Microsoft COCO: Common Objects in Context", 2014. https://arxiv.org/abs/1405.0312;
        https://cocodataset.org/#detection-eval

    Example:
        >>> metric = AveragePrecision(["cell"])
        >>> found = torch.tensor([[[0.0, 0.0, 9.0, 9.0, 0.8, 0.0]]])
        >>> metric.update(found, torch.tensor([[[0.0, 0.0, 10.0, 9.0, 0.0, 0.0, 90.0, 0.0]]]))
        >>> {name: round(value, 2) for name, value in metric.compute().items()}
        {'ap': 0.9, 'ap50': 1.0, 'ap75': 1.0, 'ap_small': 0.9, 'ap_cell': 0.9}
    """

    def __init__(self, classes: Sequence[str]):
        super().__init__()
        self.classes = tuple(classes)
        self.described = described(self.classes)  # pyright: ignore[reportAttributeAccessIssue] - per class

    def update(self, detections: Tensor, truth: Tensor) -> None:
        """Match the detections [B, D, 6] of a batch with its truth [B, N, 8], see the module."""
        rows = [torch.zeros(0, 3 + 2 * ROWS, dtype=torch.float64)]
        counts = np.zeros((len(AREAS), len(self.classes)))
        pairs = zip(*(t.detach().double().cpu().numpy() for t in (detections, truth)), strict=True)
        for found, real in pairs:
            rows += [torch.from_numpy(row) for row in self._of_image(found, real, counts)]
        self.add("rows", torch.cat(rows))
        self.add("objects", torch.from_numpy(counts))
        self.add("examples", torch.tensor(len(detections)))

    def _of_image(self, found: Floats, real: Floats, counts: Floats) -> Iterator[Floats]:
        """Rows of the detections of each class: score, class, number of the image, matches; adds to the counts."""
        number = real[0, 7]
        found, real = found[found[:, 5] >= 0], real[real[:, 4] >= 0]
        for label in np.unique(np.concatenate([found[:, 5], real[:, 4]])).astype(int):
            mine, objects = found[found[:, 5] == label], real[real[:, 4] == label]
            mine = mine[np.argsort(-mine[:, 4], kind="stable")][:MOST]
            crowd, area = objects[:, 5] > 0, objects[:, 6]
            outside = np.stack([(area < low) | (area > high) for low, high in AREAS.values()])
            ignored = crowd | outside
            counts[:, label] += (~ignored).sum(1)
            hit, out = matched(overlaps(mine[:, :4], objects[:, :4], crowd), crowd, ignored)
            size = (mine[:, 2] - mine[:, 0]) * (mine[:, 3] - mine[:, 1])
            beyond = np.stack([(size < low) | (size > high) for low, high in AREAS.values()])
            out |= ~hit & beyond[:, None]
            head = np.stack([mine[:, 4], np.full(len(mine), label), np.full(len(mine), number)], 1)
            yield np.concatenate([head, *(m.reshape(ROWS, len(mine)).T for m in (hit, out))], 1, dtype=np.float64)

    def add(self, name: str, amount: Tensor) -> None:
        """Append rows, add counts."""
        if name != "rows":
            super().add(name, amount)
        else:
            self.sums[name] = torch.cat([self.sums[name], amount]) if name in self.sums else amount.clone()

    def compute(self) -> dict[str, float]:
        rows, objects = self.total("rows").numpy(), self.total("objects").numpy()
        rows = rows[np.lexsort((rows[:, 2], -rows[:, 0]))]
        ap = np.full((len(AREAS), len(THRESHOLDS), len(self.classes)), np.nan)
        for label in range(len(self.classes)):
            mine = rows[rows[:, 1] == label, 3:].reshape(-1, 2, len(AREAS), len(THRESHOLDS)) > 0
            for a, t in np.ndindex(len(AREAS), len(THRESHOLDS)):
                if objects[a, label]:
                    hit, out = mine[:, 0, a, t], mine[:, 1, a, t]
                    ap[a, t, label] = interpolated(hit[~out], objects[a, label])
        values = {"ap": ap[0], "ap50": ap[0, :1], "ap75": ap[0, 5:6]}
        values |= {f"ap{suffix}": ap[a] for a, suffix in enumerate(AREAS) if suffix}
        values |= {f"ap_{name}": ap[0, :, label] for label, name in enumerate(self.classes)}
        there = {name: value[~np.isnan(value)] for name, value in values.items()}
        return {"ap": float("nan")} | {name: float(value.mean()) for name, value in there.items() if value.size}


def described(classes: Sequence[str]) -> tuple[Metric, ...]:
    """The metrics of `AveragePrecision` for classes of these names.

    Example:
        >>> [metric.name for metric in described(["cell"])][-1]
        'ap_cell'
    """
    labels = {"ap": "AP", "ap50": "AP50", "ap75": "AP75"}
    labels |= {f"ap{suffix}": f"AP {suffix[1:]}" for suffix in AREAS if suffix}
    labels |= {f"ap_{name}": f"AP {name}" for name in classes}
    main = ("ap", "ap50", "ap75")
    return tuple(
        Metric(name=name, label=label, unit="%", digits=2, better="higher", shown=name in main)
        for name, label in labels.items()
    )


class DetectionFidelity(StreamingMetric):
    """AP50 of a student's detections where a teacher's confident detections are the truth, as "ap50_to_teacher".

    Args:
        num_classes: Number of classes.
        least: Score from which a detection of the teacher counts as an object.

    Example:
        >>> metric, same = DetectionFidelity(1), torch.tensor([[[0.0, 0.0, 9.0, 9.0, 0.8, 0.0]]])
        >>> metric.update(same, same)
        >>> metric.compute()
        {'ap50_to_teacher': 1.0}
    """

    described = (Metric(name="ap50_to_teacher", label="AP50 to teacher", unit="%", digits=2, better="higher"),)

    def __init__(self, num_classes: int, least: float = 0.5):
        super().__init__()
        self._ap, self.least = AveragePrecision([str(i) for i in range(num_classes)]), least
        self.sums = self._ap.sums

    def update(self, student: Tensor, teacher: Tensor) -> None:
        """Compare the detections [B, D, 6] of a batch."""
        teacher = teacher.detach().double()
        box, score, label = teacher[..., :4], teacher[..., 4], teacher[..., 5]
        label = label.masked_fill(score < self.least, -1)
        area = (box[..., 2] - box[..., 0]) * (box[..., 3] - box[..., 1])
        rest = torch.stack([label, torch.zeros_like(label), area, torch.zeros_like(label)], -1)
        self._ap.update(student, torch.cat([box, rest], -1))

    def merge(self, sums: Mapping[str, Tensor]) -> None:
        self._ap.merge(sums)

    def compute(self) -> dict[str, float]:
        found = self._ap.compute()
        return {"ap50_to_teacher": found.get("ap50", float("nan"))}
