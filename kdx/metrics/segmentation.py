"""Segmentation: intersection over union and accuracy of the classes of pixels, and fidelity of two networks' pixels.

A pixel without a label (-1) counts nowhere. A pixel with a NaN logit is predicted as no class, so it only misses.
"""

import torch
from torch import Tensor

from kdx.core.functional import divergence
from kdx.core.metric import Metric
from kdx.metrics.base import StreamingMetric


def pixel_classes(logits: Tensor) -> Tensor:
    """Predicted class of each pixel, int64 [B, H, W]; C where a logit is NaN.

    Args:
        logits: [B, C, H, W].

    Raises:
        ValueError: The logits have another number of axes.

    Example:
        >>> pixel_classes(torch.tensor([[[[2.0, 0.0]], [[1.0, torch.nan]]]]))
        tensor([[[0, 2]]])
    """
    if logits.ndim != 4:
        raise ValueError(f"segmentation reads logits [B, C, H, W], got {list(logits.shape)}")
    return logits.argmax(1).masked_fill(logits.isnan().any(1), logits.shape[1])


def confusion(logits: Tensor, labels: Tensor) -> Tensor:
    """Number of pixels of each class in rows, by predicted class in columns, int64 [C, C + 1]; the last: no class.

    Args:
        logits: [B, C, H, W].
        labels: int64 [B, H, W]; -1 for a pixel without a label.

    Raises:
        ValueError: The shapes do not match.

    Example:
        >>> confusion(torch.tensor([[[[2.0, 0.0]], [[1.0, 3.0]]]]), torch.tensor([[[0, 0]]]))
        tensor([[1, 1, 0],
                [0, 0, 0]])
    """
    predicted, classes = pixel_classes(logits), logits.shape[1]
    if predicted.shape != labels.shape:
        raise ValueError(f"logits {list(logits.shape)} need labels [B, H, W] of their size, got {list(labels.shape)}")
    # unlabelled pixels fall into one more row; bincount would make a GPU wait for the largest value
    rows = torch.where(labels < 0, classes, labels)
    cells = (rows * (classes + 1) + predicted).flatten()
    counts = torch.zeros((classes + 1) ** 2, dtype=torch.int64, device=cells.device)
    return counts.index_add_(0, cells, torch.ones_like(cells)).view(classes + 1, -1)[:classes]


def ious(counts: Tensor) -> Tensor:
    """Intersection over union of each class, float64 [C]; NaN for a class that is neither there nor predicted.

    Args:
        counts: As `confusion` gives them, [C, C + 1].

    Example:
        >>> ious(torch.tensor([[1, 1, 0], [0, 2, 0]]))
        tensor([0.5000, 0.6667], dtype=torch.float64)
    """
    counts = counts.double()
    hits = counts[:, :-1].diagonal()
    return hits / (counts.sum(1) + counts[:, :-1].sum(0) - hits)


class PixelClasses(StreamingMetric):
    """Mean IoU, pixel accuracy and mean class accuracy over all pixels of all images, as "miou", "pixel_accuracy", ...

    IoU is computed from the counts of the whole set, as in PASCAL VOC and Cityscapes, and averaged over the classes
    that are there or predicted; class accuracy is averaged over the classes that are there.

    Example:
        >>> metric = PixelClasses()
        >>> metric.update(torch.tensor([[[[2.0, 0.0]], [[1.0, 3.0]]]]), torch.tensor([[[0, 0]]]))
        >>> metric.compute()
        {'miou': 0.25, 'pixel_accuracy': 0.5, 'class_accuracy': 0.5}
    """

    described = (
        Metric(name="miou", label="mIoU", unit="%", digits=2, better="higher", shown=True),
        Metric(name="pixel_accuracy", label="pixel accuracy", unit="%", digits=2, better="higher", shown=True),
        Metric(name="class_accuracy", label="class accuracy", unit="%", digits=2, better="higher"),
    )

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Count a batch: logits [B, C, H, W], labels int64 [B, H, W] or -1. Raises ValueError where shapes differ."""
        self.add("confusion", confusion(logits, labels))

    def compute(self) -> dict[str, float]:
        counts = self.total("confusion")
        hits, truth = counts[:, :-1].diagonal(), counts.sum(1)
        return {
            "miou": float(ious(counts).nanmean()),
            "pixel_accuracy": float(hits.sum() / truth.sum()),
            "class_accuracy": float((hits / truth).nanmean()),
        }


class PixelFidelity(StreamingMetric):
    """Agreement of two networks on the classes of pixels, and KL(teacher || student) in nats, means over all pixels.

    Example:
        >>> metric, z = PixelFidelity(), torch.randn(2, 3, 4, 4)
        >>> metric.update(z, z)
        >>> metric.compute()
        {'agreement': 1.0, 'kl': 0.0}
    """

    described = (
        Metric(name="agreement", label="agreement", unit="%", digits=2, better="higher", shown=True),
        Metric(name="kl", label="KL(teacher‖student) T=1", unit="nats", better="lower", shown=True),
    )

    def update(self, student: Tensor, teacher: Tensor) -> None:
        """Count a batch: logits [B, C, H, W] of both networks."""
        ours, theirs = pixel_classes(student), pixel_classes(teacher)
        self.count(ours.flatten())
        self.add("agreement", ((ours == theirs) & (ours < student.shape[1])).sum())
        rows = (logits.double().movedim(1, -1).log_softmax(-1).flatten(0, -2) for logits in (teacher, student))
        self.add("kl", divergence(*rows).sum())

    def compute(self) -> dict[str, float]:
        return {name: self.mean(name) for name in ("agreement", "kl")}
