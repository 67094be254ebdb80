"""Masked language modelling: the hidden tokens of a text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kdx.core.batch import UNLABELLED, Batch
from kdx.core.functional import mean_log_probs
from kdx.core.metric import Metric
from kdx.core.outputs import Outputs
from kdx.core.task import TOKENS, PairMetric
from kdx.metrics.accuracy import correct
from kdx.metrics.fidelity import ClassFidelity
from kdx.metrics.token_prediction import TokenPrediction
from kdx.tasks.base import BaseTask, metric_of
from kdx.tasks.classes import Classes


@dataclass(frozen=True)
class MaskedTokens(BaseTask):
    """Logits [B, L, V] against labels [B, L], the ids of hidden tokens and -1 elsewhere; measured by perplexity.

    Metrics and fidelity count hidden tokens alone. Terms on classes work on the tokens inside
    `kdx.losses.wrappers.over_rows.OverRows`.

    Attributes:
        vocab_size: V.
        length: Tokens of a made-up text, for made-up targets.

    Example:
        >>> MaskedTokens(30522, 128).primary.heading
        'perplexity'
    """

    vocab_size: int
    length: int

    @property
    def kind(self) -> str:
        return TOKENS

    @property
    def num_outputs(self) -> int:
        return self.vocab_size

    @property
    def each_row(self) -> Classes:
        return Classes(self.vocab_size)

    @property
    def described(self) -> Sequence[Metric]:
        return TokenPrediction.described

    @property
    def primary(self) -> Metric:
        return metric_of(TokenPrediction.described, "perplexity")

    def training_metric(self, outputs: Outputs, batch: Batch) -> Mapping[str, tuple[Tensor, Tensor]]:
        labels = batch.labels
        right = correct(outputs.logits.flatten(0, 1), labels.flatten()).sum()
        return {"token_accuracy": (right, (labels >= 0).sum())}

    def metrics(self) -> Mapping[str, PairMetric]:
        return {"tokens": TokenPrediction()}

    def pair(self, outputs: Outputs, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits [N, V] and ids [N] of the hidden tokens."""
        return self.counted(outputs.logits, batch).float(), batch.labels[batch.labels >= 0]

    def fidelity(self) -> PairMetric:
        return ClassFidelity()

    def counted(self, answer: Tensor, batch: Batch) -> Tensor:
        """Logits of the hidden tokens, [N, V]."""
        return answer[batch.labels >= 0]

    def together(self, logits: Sequence[Tensor]) -> Tensor:
        """Logarithm of the mean of the networks' probabilities, [B, L, V]."""
        return mean_log_probs([own.log_softmax(2) for own in logits])

    def predictions(self, outputs: Outputs) -> Mapping[str, Tensor]:
        """Nothing: the predicted tokens of a corpus are of no use without its texts, and larger than these."""
        return {}

    def kept_targets(self, batch: Batch) -> Mapping[str, Tensor]:
        return {}

    def made_up(self, size: int) -> Mapping[str, Tensor]:
        """Every second token is hidden."""
        cells = torch.arange(size)[:, None] + torch.arange(self.length)
        return {"labels": torch.where(cells % 2 == 0, cells % self.vocab_size, UNLABELLED)}
