"""Small networks between a student's feature and a teacher's, trained with the student."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdx.core.distributed import size, total
from kdx.losses.base.memory_format import positions


class Norm(nn.BatchNorm2d):
    """Batch norm that takes its running statistics where a channel has a single value.

    The last batch of an epoch may hold one example, and a vector is a map of one position: there the
    batch's own variance is 0, and torch refuses.
    """

    def forward(self, input: Tensor) -> Tensor:
        if self.training and input.numel() == input.shape[1]:
            known = self.running_mean, self.running_var
            return F.batch_norm(input, *known, self.weight, self.bias, training=False, eps=self.eps)
        return super().forward(input)


def pointwise(inputs: int, outputs: int) -> nn.Sequential:
    """1 x 1 convolution (He normal over fan_out, no bias) and batch norm: from `inputs` channels to `outputs`."""
    conv = nn.Conv2d(inputs, outputs, 1, bias=False)
    nn.init.normal_(conv.weight, 0.0, math.sqrt(2 / outputs))
    return nn.Sequential(conv, Norm(outputs))


def block(inputs: int, outputs: int, kernel: int) -> tuple[nn.Module, ...]:
    """A convolution that keeps the size, batch norm and ReLU."""
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
    return conv, Norm(outputs), nn.ReLU()


def folded(maps: Tensor, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weight [D, C] and bias [D] of the affine map that a 1 x 1 convolution and a batch norm amount to.

    In training, the statistics of the D outputs follow from the mean and covariance of the C inputs
    [B, C, H, W], so that the outputs need not be there to be normalised. Running statistics move as they
    would.
    """
    weight = conv.weight.flatten(1)
    mean, var = norm.running_mean, norm.running_var
    assert mean is not None and var is not None and norm.momentum is not None
    count = maps.numel() // maps.shape[1]
    if norm.training and count * size() > 1:
        flat = positions(maps).flatten(0, 1)
        centre = flat.mean(0)
        if size() > 1:  # of the whole batch, of which each process has a share
            count = total(flat.new_tensor([count]))
            centre = total(flat.sum(0)) / count
        spread = flat - centre
        moved = weight @ (total(spread.T @ spread) / count)
        running, mean, var = (mean, var), weight @ centre, (moved * weight).sum(1).clamp(min=0)
        with torch.no_grad():
            running[0].lerp_(mean, norm.momentum)
            running[1].lerp_(var * (count / (count - 1)), norm.momentum)
            if norm.num_batches_tracked is not None:
                norm.num_batches_tracked += 1
    scale = norm.weight / (var + norm.eps).sqrt()
    return scale[:, None] * weight, norm.bias - scale * mean
