"""Average precision of base and of novel classes, scored together."""

from collections.abc import Sequence

import torch
from torch import Tensor

from kdx.core.metric import Metric
from kdx.metrics.detection import AveragePrecision

KINDS = ("base", "novel")


class GeneralisedPrecision(AveragePrecision):
    """AP of all classes, and AP50 averaged over base and over novel classes, as "ap50_base" and "ap50_novel".

    All classes are detected at once; AP of a class does not depend on the others, so each mean is over its own.

    Args:
        classes: Name of each class.
        novel: Positions of the novel classes.

    References:
        Rasheed et al., "Bridging the Gap between Object and Image-level Representations for Open-Vocabulary
        Detection", 2022. https://arxiv.org/abs/2207.03482

    Example:
        >>> metric = GeneralisedPrecision(["cat", "dog"], [1])
        >>> found = torch.tensor([[[0.0, 0.0, 9.0, 9.0, 0.8, 0.0]]])
        >>> truth = [[0.0, 0.0, 9.0, 9.0, label, 0.0, 81.0, 0.0] for label in (0.0, 1.0)]
        >>> metric.update(found, torch.tensor([truth]))
        >>> {name: round(value, 2) for name, value in metric.compute().items() if name.startswith("ap50")}
        {'ap50': 0.5, 'ap50_base': 1.0, 'ap50_novel': 0.0}
    """

    def __init__(self, classes: Sequence[str], novel: Sequence[int]):
        super().__init__(classes)
        self.novel = tuple(novel)
        own = [
            Metric(name=f"ap50_{k}", label=f"AP50 {k}", unit="%", digits=2, better="higher", shown=True) for k in KINDS
        ]
        self.described = (*own, *self.described)  # pyright: ignore[reportAttributeAccessIssue] - per class

    def compute(self) -> dict[str, float]:
        rows, objects = self.total("rows"), self.total("objects")
        novel = torch.zeros(len(self.classes), dtype=torch.bool)
        novel[list(self.novel)] = True
        found = {}
        for kind, mine in zip(KINDS, (~novel, novel), strict=True):
            part = AveragePrecision(self.classes)
            part.sums = {"rows": rows[mine[rows[:, 1].long()]], "objects": objects * mine}
            values = part.compute()
            found |= {f"ap50_{kind}": values["ap50"]} if "ap50" in values else {}
        return super().compute() | found


def nearest_class(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Number of regions whose highest logit is that of their class, and number of regions with a class.

    Args:
        logits: [N, C].
        labels: Class of each region, [N]; -1 for a region that does not count.

    Example:
        >>> nearest_class(torch.tensor([[2.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 1, -1]))
        (tensor(1), tensor(2))
    """
    return ((logits.argmax(1) == labels) & (labels >= 0)).sum(), (labels >= 0).sum()
