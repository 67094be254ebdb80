"""DAFL's losses of the generator: properties that a teacher's outputs have on real images."""

import math

from torch import Tensor
from torch.nn import functional as F

from kdx.losses.base.numerics import full_precision


@full_precision
def one_hot(teacher_logits: Tensor) -> Tensor:
    """Cross-entropy of the teacher with its own prediction; it is low on real images.

    Args:
        teacher_logits: [B, C], with a graph back to the images.

    Returns:
        [B], in nats.

    References:
        Chen, Wang, Xu, Yang, Liu, Shi, Xu, Xu, Tian, "Data-Free Learning of Student Networks", 2019.
        https://arxiv.org/abs/1904.01186

    Example:
        >>> one_hot(torch.tensor([[0.0, 0.0]]))  # uniform over two classes: log 2
        tensor([0.6931])
    """
    return F.cross_entropy(teacher_logits, teacher_logits.argmax(1), reduction="none")


@full_precision
def activation(features: Tensor) -> Tensor:
    """Negative mean absolute feature of each example; real images activate features strongly. [B, ...] to [B].

    References:
        As in `one_hot`.

    Example:
        >>> activation(torch.tensor([[1.0, -3.0]]))
        tensor([-2.])
    """
    return -features.flatten(1).abs().mean(1)


@full_precision
def information(teacher_logits: Tensor) -> Tensor:
    """Negative entropy of the mean prediction over the batch, so that the generator makes all classes equally often.

    A value of the batch, not of an example. The logarithm has base 10, as in the authors' code; the paper's natural
    logarithm would be 2.3 times as large.

    Args:
        teacher_logits: [B, C].

    Returns:
        A scalar, from -log10 C where classes are equally frequent to 0 where there is one.

    Example:
        >>> torch.allclose(information(100 * torch.eye(10)), torch.tensor(-1.0))  # all ten classes equally often
        True
    """
    p = teacher_logits.softmax(1).mean(0)
    return (p * p.clamp(min=1e-30).log()).sum() / math.log(10)
