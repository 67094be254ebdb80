"""Layers that map a student's feature to a teacher's shape, trained with the student."""

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdx.core.distributed import all_reduce_sum, world_size
from kdx.losses.base.memory_format import positions

Initial = Literal["he", "torch"]


class Norm(nn.BatchNorm2d):
    """Batch norm that uses its running statistics where a channel has a single value.

    A channel of a batch with one vector, or with one map of one position, has no variance, and torch raises an error.
    The last batch of an epoch may be such a batch.
    """

    def forward(self, input: Tensor) -> Tensor:
        if self.training and input.numel() == input.shape[1]:
            known = self.running_mean, self.running_var
            return F.batch_norm(input, *known, self.weight, self.bias, training=False, eps=self.eps)
        return super().forward(input)


def pointwise(inputs: int, outputs: int, initial: Initial = "he") -> nn.Sequential:
    """A 1 x 1 convolution without bias, and batch norm.

    Args:
        inputs: Channels of the input.
        outputs: Channels of the output.
        initial: Initialisation of the convolution: 'he' (normal over fan_out) or 'torch' (its default, uniform).

    Example:
        >>> pointwise(16, 32)(torch.zeros(2, 16, 8, 8)).shape
        torch.Size([2, 32, 8, 8])
    """
    conv = nn.Conv2d(inputs, outputs, 1, bias=False)
    if initial == "he":
        nn.init.normal_(conv.weight, 0.0, math.sqrt(2 / outputs))
    return nn.Sequential(conv, Norm(outputs))


def block(inputs: int, outputs: int, kernel: int) -> tuple[nn.Module, ...]:
    """A convolution that keeps the height and width, batch norm and ReLU.

    Args:
        inputs: Channels of the input.
        outputs: Channels of the output.
        kernel: Side of the kernel, odd.

    Example:
        >>> nn.Sequential(*block(16, 32, 3))(torch.zeros(2, 16, 8, 8)).shape
        torch.Size([2, 32, 8, 8])
    """
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
    return conv, Norm(outputs), nn.ReLU()


def folded(maps: Tensor, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """The affine map to which a 1 x 1 convolution and a batch norm amount.

    In training mode, the statistics of the D outputs follow from the mean and covariance of the C inputs, so the
    outputs need not be computed to be normalised. The running statistics are updated as in the batch norm.

    Args:
        maps: Input of the convolution, [B, C, H, W].
        conv: A 1 x 1 convolution from C to D channels, without bias.
        norm: The batch norm on its output.

    Returns:
        Weight [D, C] and bias [D].

    Example:
        >>> x, (conv, norm) = torch.randn(4, 3, 5, 5), pointwise(3, 6)
        >>> weight, bias = folded(x, conv, norm)
        >>> torch.allclose(F.conv2d(x, weight[:, :, None, None], bias), norm(conv(x)), atol=1e-5)
        True
    """
    weight = conv.weight.flatten(1)
    mean, var = norm.running_mean, norm.running_var
    assert mean is not None and var is not None and norm.momentum is not None
    count = maps.numel() // maps.shape[1]
    if norm.training and count * world_size() > 1:
        flat = positions(maps).flatten(0, 1)
        centre = flat.mean(0)
        if world_size() > 1:  # statistics of the whole batch, over all processes
            count = all_reduce_sum(flat.new_tensor([count]))
            centre = all_reduce_sum(flat.sum(0)) / count
        spread = flat - centre
        moved = weight @ (all_reduce_sum(spread.T @ spread) / count)
        running, mean, var = (mean, var), weight @ centre, (moved * weight).sum(1).clamp(min=0)
        with torch.no_grad():
            running[0].lerp_(mean, norm.momentum)
            running[1].lerp_(var * (count / (count - 1)), norm.momentum)
            if norm.num_batches_tracked is not None:
                norm.num_batches_tracked += 1
    scale = norm.weight / (var + norm.eps).sqrt()
    return scale[:, None] * weight, norm.bias - scale * mean
