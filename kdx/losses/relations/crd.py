"""CRD: contrastive learning between the two networks' representations of an example and of many others."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdx.core.batch import Batch
from kdx.core.functional import unit
from kdx.core.outputs import Outputs, Shapes
from kdx.core.ranges import PartialFraction, Positive, PositiveInt
from kdx.core.schedule import Progress, Schedule, at
from kdx.core.spec import DataSpec
from kdx.core.task import ONLY_CLASSES
from kdx.losses.base.checks import require_labels
from kdx.losses.base.numerics import full_precision
from kdx.losses.base.pairs import Paired

ELEMENTS_AT_ONCE = 2**26
"""Largest [rows, N] tensor of keys or similarities before the rows are done in pieces."""


def draw(own: Tensor, labels: Tensor, count: int) -> Tensor:
    """Draw `count` different examples of other classes for each of some examples, uniformly over all such sets.

    The draws come from the device's global stream.

    Args:
        own: Class of each example, [B].
        labels: Class of each example of the training set, [N].
        count: At most the number of examples outside any class.

    Returns:
        Positions in the training set, [B, count].

    Example:
        >>> draw(torch.tensor([0, 1]), torch.tensor([0, 1, 1, 0]), 2).sort(1).values
        tensor([[1, 2],
                [0, 3]])
    """
    chosen = []
    for part in own.split(max(1, ELEMENTS_AT_ONCE // len(labels))):
        keys = torch.rand(len(part), len(labels), device=labels.device)
        keys.masked_fill_(part[:, None] == labels, 2.0)
        # the examples with the smallest random keys are a uniform draw without replacement
        chosen.append(keys.topk(count, dim=1, largest=False, sorted=False).indices)
    return torch.cat(chosen)


def similarities(embedded: Tensor, memory: Tensor, chosen: Tensor) -> Tensor:
    """Inner products of each example with the memory rows chosen for it.

    It takes one matrix product with the whole memory and gathers numbers. Copying a memory row for each of the B * K
    choices, as public code does, moves D times as much.

    Args:
        embedded: [B, D].
        memory: [N, D].
        chosen: Positions in the memory, [B, K].

    Returns:
        [B, K].

    Example:
        >>> similarities(torch.tensor([[1.0, 2.0]]), torch.eye(2), torch.tensor([[1, 0]]))
        tensor([[2., 1.]])
    """
    pieces = zip(*(t.split(max(1, ELEMENTS_AT_ONCE // len(memory))) for t in (embedded, chosen)), strict=True)
    return torch.cat([(rows @ memory.T).gather(1, columns) for rows, columns in pieces])


@full_precision
def noise_contrast(logits: Tensor, log_odds: float) -> Tensor:
    """Negative log-likelihood of classifying the first column as the pair and the others as noise.

    With the density `p = exp(logit)` and K noise samples at density 1 / N, the pair is real with probability
    `p / (p + K / N)`.

    Args:
        logits: Log densities [B, 1 + K], the pair first.
        log_odds: `log(K / N)`.

    Returns:
        [B].

    Example:
        At even odds, each of the three columns costs log 2.

        >>> torch.allclose(noise_contrast(torch.zeros(1, 3), 0.0), 3 * torch.tensor([2.0]).log())
        True
    """
    gaps = logits - log_odds
    return F.softplus(-gaps[:, 0]) + F.softplus(gaps[:, 1:]).sum(1)


def remembered(memory: Tensor, index: Tensor, embedded: Tensor, momentum: float) -> Tensor:
    """The memory [N, D] after its rows at `index` [B] moved towards `embedded` [B, D], scaled to length 1.

    An example that occurs in the batch more than once moves once, towards its mean. The old memory is not modified,
    since the backward pass still reads it.

    Example:
        >>> remembered(torch.eye(2), torch.tensor([0]), torch.tensor([[0.0, 1.0]]), 0.0)
        tensor([[0., 1.],
                [0., 1.]])
    """
    same = (index[:, None] == index).to(embedded.dtype)
    mean = same @ embedded / same.sum(1, keepdim=True)
    return memory.index_copy(0, index, unit(momentum * memory[index] + (1 - momentum) * mean, 1))


class CRD(Paired):
    """Contrast of each network's embedding with the other network's memory.

    Both embeddings are linear, scaled to length 1, and trained. Each example is contrasted with `negatives` examples of
    other classes, drawn at each step. The memories, the two normalising constants (estimated from the first batch, as
    published) and the random stream are parts of a checkpoint.

    Args:
        student_role: The student's feature, usually the pooled one; flattened.
        teacher_role: The teacher's feature; its width may differ.
        width: D, dimensions of the embeddings.
        negatives: K. Where the training set has fewer examples of other classes, all of them are taken.
        temperature: Temperature of the similarities; a number or a schedule.
        momentum: Share of the old memory that each visit keeps; a number or a schedule.

    References:
        Tian, Krishnan, Isola, "Contrastive Representation Distillation", 2020. https://arxiv.org/abs/1910.10699
    """

    divisible = False
    keyed_by_index = True
    tasks = ONLY_CLASSES
    called = "CRD"
    embed_student: nn.Module
    embed_teacher: nn.Module
    memory_student: Tensor
    memory_teacher: Tensor
    log_constants: Tensor
    labels: Tensor

    def __init__(
        self,
        student_role: str,
        teacher_role: str,
        width: PositiveInt,
        negatives: PositiveInt,
        temperature: Positive | Schedule,
        momentum: PartialFraction | Schedule,
    ):
        super().__init__({student_role: teacher_role})
        self.width, self.negatives = width, negatives
        self.temperature, self.momentum = temperature, momentum

    def build(self, student: Shapes, teacher: Shapes | None, spec: DataSpec) -> None:
        ((mine, theirs),) = self.shapes(student, teacher)
        require_labels(spec, "CRD")
        if spec.labels is None:
            raise ValueError("CRD chooses negatives of other classes, and the labels of this data set are unknown")
        fewest = spec.num_examples - int(spec.labels.bincount().max())
        if not fewest:
            raise ValueError("CRD needs examples of at least two classes, and the training set has one class")
        self.count = min(self.negatives, fewest)
        self.embed_student = nn.Linear(math.prod(mine), self.width)
        self.embed_teacher = nn.Linear(math.prod(theirs), self.width)
        bound = math.sqrt(3 / self.width)  # vectors of length about 1
        for name in ("memory_student", "memory_teacher"):
            self.register_buffer(name, torch.empty(spec.num_examples, self.width).uniform_(-bound, bound))
        self.register_buffer("log_constants", torch.full((2,), math.nan))
        self.register_buffer("labels", spec.labels, persistent=False)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch, progress: Progress) -> Tensor:
        ((mine, theirs),) = self.features(student, teacher)
        mine = unit(self.embed_student(mine.flatten(1)), 1)
        theirs = unit(self.embed_teacher(theirs.flatten(1)), 1)
        others = draw(self.labels[batch.index], self.labels, self.count)
        chosen = torch.cat([batch.index[:, None], others], 1)
        rows = [
            noise_contrast(self._log_density(side, embedded, memory, chosen, progress), self._log_odds)
            for side, (embedded, memory) in enumerate([(mine, self.memory_teacher), (theirs, self.memory_student)])
        ]
        if self.training:
            momentum = at(self.momentum, progress)
            self.memory_student = remembered(self.memory_student, batch.index, mine.detach(), momentum)
            self.memory_teacher = remembered(self.memory_teacher, batch.index, theirs.detach(), momentum)
        return rows[0] + rows[1]

    @property
    def _log_odds(self) -> float:
        return math.log(self.count / len(self.labels))

    def _log_density(self, side: int, embedded: Tensor, memory: Tensor, chosen: Tensor, progress: Progress) -> Tensor:
        logits = similarities(embedded, memory, chosen) / at(self.temperature, progress)
        known = self.log_constants[side]
        estimate = logits.detach().flatten().logsumexp(0) - math.log(logits.numel()) + math.log(len(self.labels))
        constant = torch.where(known.isnan(), estimate, known)
        if self.training:
            self.log_constants[side] = constant
        return logits - constant
