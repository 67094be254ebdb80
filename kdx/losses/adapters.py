"""Small networks between a student's feature and a teacher's, trained with the student."""

import math

from torch import Tensor, nn
from torch.nn import functional as F


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
