"""Multi-label classification: any number of C labels for each example."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from kdx.core.batch import Batch
from kdx.core.metric import Metric
from kdx.core.outputs import Outputs
from kdx.core.task import LABELS, PairMetric
from kdx.metrics.label_fidelity import LabelFidelity
from kdx.metrics.multilabel import LabelDecisions, LabelRanking, decide, holds
from kdx.tasks.base import BaseTask, describe, metric_of


@dataclass(frozen=True)
class Labels(BaseTask):
    """Log-odds [B, C] against the presence of each label [B, C] in [0, 1]; measured by mAP, F1 and Hamming score.

    Decisions are taken at a probability of one half; the evaluator `LabelThresholds` chooses thresholds on validation.

    Attributes:
        num_labels: C.

    Example:
        >>> Labels(20).primary.heading
        'mAP %'
    """

    num_labels: int

    @property
    def kind(self) -> str:
        return LABELS

    @property
    def num_outputs(self) -> int:
        return self.num_labels

    @property
    def described(self) -> Sequence[Metric]:
        return describe(LabelRanking.described, LabelDecisions.described)

    @property
    def primary(self) -> Metric:
        return metric_of(LabelRanking.described, "map")

    def training_metric(self, outputs: Outputs, batch: Batch) -> Mapping[str, tuple[Tensor, Tensor]]:
        """Hamming score."""
        presence = batch.target("presence")
        right = (decide(outputs.logits, presence, 0.0) == holds(presence)).float().mean(1)
        return {"hamming": (right.sum(), torch.full((), len(right), device=right.device))}

    def metrics(self) -> Mapping[str, PairMetric]:
        return {"ranking": LabelRanking(), "decisions": LabelDecisions(thresholds=0.0)}

    def pair(self, outputs: Outputs, batch: Batch) -> tuple[Tensor, Tensor]:
        return outputs.logits.float(), batch.target("presence")

    def fidelity(self) -> PairMetric:
        return LabelFidelity()

    def together(self, logits: Sequence[Tensor]) -> Tensor:
        """Log-odds of the mean of the networks' probabilities, [B, C]."""
        stacked = torch.stack(list(logits))
        return F.logsigmoid(stacked).logsumexp(0) - F.logsigmoid(-stacked).logsumexp(0)

    def predictions(self, outputs: Outputs) -> Mapping[str, Tensor]:
        """ "probability" float32 [B, C]."""
        return {"probability": outputs.logits.double().sigmoid().float()}

    def kept_targets(self, batch: Batch) -> Mapping[str, Tensor]:
        return {"presence": batch.target("presence").float()}

    def made_up(self, size: int) -> Mapping[str, Tensor]:
        """Every label holds for every second example."""
        cells = torch.arange(size)[:, None] + torch.arange(self.num_labels)
        return {"presence": (cells % 2).float()}
