"""Region distillation: embeddings of proposals, and their relations, against a vision-language model's."""

import torch
from torch import Tensor

from kdx.core.batch import Batch
from kdx.core.functional import unit
from kdx.core.outputs import Outputs, Shapes
from kdx.core.schedule import Progress
from kdx.core.spec import DataSpec
from kdx.losses.base.numerics import full_precision
from kdx.losses.detection.own import DetectorTerm, target

EMBEDDINGS = "proposals.embeddings"


@full_precision
def embedding_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean absolute difference of embeddings of length 1, over the numbers of a scene's proposals, [B].

    Args:
        student: [B, K, D].
        teacher: [B, K, D], gets no gradient; a proposal of zeros is left out.

    References:
        Rasheed et al., "Bridging the Gap between Object and Image-level Representations for Open-Vocabulary
        Detection", 2022. https://arxiv.org/abs/2207.03482

    Example:
        >>> x = torch.randn(2, 5, 8)
        >>> embedding_distance(3 * x, x).max() < 1e-6
        tensor(True)
    """
    known = (teacher != 0).any(2)
    gaps = (unit(student, 2) - unit(teacher.detach(), 2)).abs().mean(2)
    return (gaps * known).sum(1) / known.sum(1).clamp(min=1)


@full_precision
def relation_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared distance between the rows of two Gram matrices of embeddings, each row of length 1; mean over rows, [B].

    A row holds the cosines of one proposal with all proposals of the batch. The authors' code sums over rows instead,
    so that its value grows with the batch.

    Args:
        student: [B, K, D].
        teacher: [B, K, D], gets no gradient; a proposal of zeros is left out.

    References:
        Rasheed et al., as in `embedding_distance`.

    Example:
        Rotated embeddings have the same relations.

        >>> x, (rotation, _) = torch.randn(2, 5, 8), torch.linalg.qr(torch.randn(8, 8))
        >>> relation_distance(x @ rotation, x).max() < 1e-9
        tensor(True)
    """
    known = (teacher != 0).any(2).flatten()
    rows = [unit(x.flatten(0, 1), 1)[known] for x in (student, teacher.detach())]
    ours, theirs = (unit(x @ x.T, 1) for x in rows)
    each = (ours - theirs).square().sum(1)
    spread = torch.zeros(len(known), dtype=each.dtype, device=each.device).index_add(0, known.nonzero().flatten(), each)
    return spread.view(student.shape[:2]).sum(1) * (len(student) / known.sum().clamp(min=1))


class EmbeddingL1(DetectorTerm):
    """Distance of the embeddings of a scene's proposals."""

    on_images = True

    def build(self, student: Shapes, teacher: Shapes | None, spec: DataSpec) -> None:
        if "regions" not in student.features:
            raise ValueError(
                f"{type(self).__name__} needs an open-vocabulary detector, such as student=open_rcnn_small"
            )

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch, progress: Progress) -> Tensor:
        return embedding_distance(*embeddings(student, batch))


class EmbeddingRelations(EmbeddingL1):
    """Distance of the relations between the embeddings of all proposals of a batch (IRM)."""

    divisible = False

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch, progress: Progress) -> Tensor:
        return relation_distance(*embeddings(student, batch))


def embeddings(student: Outputs, batch: Batch) -> tuple[Tensor, Tensor]:
    """Embeddings of the batch's proposals by the student and by the vision-language model, [B, K, D].

    Raises:
        ValueError: Both have different numbers of dimensions.

    Example:
        >>> student = Outputs(torch.zeros(0, 1), {EMBEDDINGS: torch.zeros(1, 5, 8)})
        >>> targets = {"proposal_embeddings": torch.ones(1, 5, 8)}
        >>> [tuple(e.shape) for e in embeddings(student, Batch(torch.zeros(1), targets, torch.arange(1)))]
        [(1, 5, 8), (1, 5, 8)]
    """
    mine, theirs = target(student, EMBEDDINGS), batch.target("proposal_embeddings")
    if theirs.shape[2] not in (1, mine.shape[2]):  # 1: missing ones, as in a trial step
        raise ValueError(
            f"the proposals have embeddings of {theirs.shape[2]} numbers, and the class names of the student "
            f"{mine.shape[2]}; use the text encoder of the same vision-language model (student.net.encoder)"
        )
    return mine, theirs.expand_as(mine)
