"""What a teacher should make of made-up images, were they real ones: the generator's side of DAFL."""

import math

from torch import Tensor
from torch.nn import functional as F

from kdx.losses.base.numerics import full_precision


@full_precision
def one_hot(teacher_logits: Tensor) -> Tensor:
    """Cross-entropy of the teacher with its own prediction: real images leave it little doubt.

    Args:
        teacher_logits: [B, C], with a graph back to the images.

    Returns:
        [B], in nats.

    References:
        Chen, Wang, Xu, Yang, Liu, Shi, Xu, Xu, Tian, "Data-Free Learning of Student Networks", 2019.
        https://arxiv.org/abs/1904.01186
    """
    return F.cross_entropy(teacher_logits, teacher_logits.argmax(1), reduction="none")


@full_precision
def activation(features: Tensor) -> Tensor:
    """Less the mean size of each example's features: real images excite them. [B, ...] to [B]. As in `one_hot`."""
    return -features.flatten(1).abs().mean(1)


@full_precision
def information(teacher_logits: Tensor) -> Tensor:
    """Less the entropy of the classes over the batch, so that all classes are made equally often.

    A function of the batch and not of each example. The logarithm is to the base 10, as in the authors' code; the
    paper's natural one would be 2.3 times as large.

    Args:
        teacher_logits: [B, C].

    Returns:
        A scalar, from -log10 C where classes are equally frequent to 0 where there is one.
    """
    p = teacher_logits.softmax(1).mean(0)
    return (p * p.clamp(min=1e-30).log()).sum() / math.log(10)
