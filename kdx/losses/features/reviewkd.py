"""ReviewKD: the student's shallow features are fused with its deeper ones, and all learn from the teacher's."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdx.core.batch import Batch
from kdx.core.outputs import Outputs, Shapes
from kdx.core.ranges import PositiveInt
from kdx.core.schedule import Progress
from kdx.core.spec import DataSpec
from kdx.losses.base.adapters import Norm, folded
from kdx.losses.base.memory_format import examples
from kdx.losses.base.numerics import full_precision
from kdx.losses.base.pairs import Paired
from kdx.losses.base.roles import Pairs, Roles, inner_pairs
from kdx.losses.base.upsample import add_enlarged, convolve_enlarged, divides, enlarged

LEVELS = (4, 2, 1)
"""Sides of the pooled maps that are compared besides the map itself."""


@full_precision
def hierarchical_distance(student_features: Tensor, teacher_features: Tensor) -> Tensor:
    """HCL: mean squared difference of the maps and of pooled versions of them.

    The map itself counts 1 and each pooled version (4 x 4, 2 x 2 and 1 x 1, where they are smaller than the map) half
    as much as the one before; the sum is divided by the sum of these weights.

    Args:
        student_features: [B, C, H, W], in the teacher's shape.
        teacher_features: [B, C, H, W]; gets no gradient.

    Returns:
        [B].

    References:
        Chen, Liu, Zhao, Jia, "Distilling Knowledge via Knowledge Review", 2021. https://arxiv.org/abs/2104.09044

    Example:
        A constant difference is the same at every level.

        >>> hierarchical_distance(torch.full((1, 2, 8, 8), 3.0), torch.zeros(1, 2, 8, 8))
        tensor([9.])
    """
    # pooling is linear: the difference is pooled once instead of both maps
    gaps = student_features - teacher_features.detach()
    rows, total, weight = examples(gaps).square().mean(1), 1.0, 1.0
    sides = [side for side in LEVELS if side < gaps.shape[2]]
    # blocks of equal size can be pooled further; each level divides the one before
    even = all(size % side == 0 for size in gaps.shape[2:] for side in sides[:1])
    coarse = gaps
    for side in sides:
        coarse = F.adaptive_avg_pool2d(coarse if even else gaps, side)
        weight /= 2
        total += weight
        rows = rows + weight * examples(coarse).square().mean(1)
    return rows / total


class _Fusion(nn.Module):
    """ABF: mixes the student's map with the deeper mixture, position by position.

    Linear steps are reordered, so that most of the work is done on the narrow map and at the small size: `W (a x) + c
    a` is `a (W x + c)`, a 1 x 1 convolution may come before an upsampling, and where no shallower map reads the
    mixture, the predicting convolution is applied to its two parts.

    Args:
        inputs: Channels of the student's map.
        middle: Channels of the mixture.
        outputs: Channels of the teacher's map.
        fuse: Whether there is a deeper mixture; False at the deepest map.
        last: Whether no shallower map reads the mixture.
    """

    def __init__(self, inputs: int, middle: int, outputs: int, fuse: bool, last: bool):
        super().__init__()
        self.reduce = nn.Sequential(nn.Conv2d(inputs, middle, 1, bias=False), Norm(middle))
        self.predict = nn.Sequential(nn.Conv2d(middle, outputs, 3, padding=1, bias=False), Norm(outputs))
        self.attention = nn.Conv2d(2 * middle, 2, 1) if fuse else None
        self.last = last
        for layer in (self.reduce[0], self.predict[0]):
            assert isinstance(layer, nn.Conv2d)
            nn.init.kaiming_uniform_(layer.weight, a=1)

    def forward(self, x: Tensor, deeper: Tensor | None, size: tuple[int, ...]) -> tuple[Tensor, Tensor | None]:
        """The predicted map at the teacher's size, and the mixture for the next shallower map, if any."""
        if deeper is None or self.attention is None:
            mixture = enlarged(self.reduce(x), size)
            return self.predict(mixture), mixture
        mine, affine, share = self._parts(x, deeper, self.attention)
        conv, norm = self.predict
        assert isinstance(conv, nn.Conv2d)
        if self.last and x.shape[2:] == size and self._pays(x, deeper):
            kernel = torch.einsum("omhw,mi->oihw", conv.weight, affine)
            return norm(convolve_enlarged(F.conv2d(mine, kernel, padding=1), deeper, share, conv.weight)), None
        mixture = enlarged(add_enlarged(F.conv2d(mine, affine[..., None, None]), deeper, share), size)
        return self.predict(mixture), mixture

    def _parts(self, x: Tensor, deeper: Tensor, attention: nn.Conv2d) -> tuple[Tensor, Tensor, Tensor]:
        """(m, A, b), the mixture `x' * a + up(deeper) * b` being `A m + up(deeper) * b`, with x' the reduced x.

        The shares are (a, b) = sigmoid(attention([x', up(deeper)])).
        """
        conv, norm = self.reduce
        assert isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
        weight, bias = folded(x, conv, norm)
        mine, theirs = attention.weight.flatten(1).split(len(weight), 1)
        offset = mine @ bias if attention.bias is None else mine @ bias + attention.bias
        logits = F.conv2d(x, (mine @ weight)[..., None, None], offset)
        shares = (logits + enlarged(F.conv2d(deeper, theirs[..., None, None]), x.shape[2:])).sigmoid()
        first, second = shares[:, :1], shares[:, 1:]
        return torch.cat([x * first, first], 1), torch.cat([weight, bias[:, None]], 1), second

    def _pays(self, x: Tensor, deeper: Tensor) -> bool:
        """Whether predicting from both parts halves the number of multiplications, which pays for their sum."""
        if not divides(deeper, x.shape[2:]):
            return False
        conv = self.predict[0]
        assert isinstance(conv, nn.Conv2d)
        middle, outputs, taps = conv.in_channels, conv.out_channels, conv.weight[0, 0].numel()
        narrow, large, small = x.shape[1] + 1, x.shape[2:].numel(), deeper.shape[2:].numel()
        whole = large * middle * (narrow + taps * outputs)
        return 2 * taps * outputs * (large * narrow + small * middle) <= whole


class ReviewKD(Paired):
    """Distance of the student's fused maps from the teacher's maps, summed over pairs.

    From the deepest pair to the shallowest, each map of the student is mixed with the mixture before it and predicts
    the teacher's map. A vector is a map of one position. Where sizes differ, the student's side is resampled to the
    teacher's size by the nearest value.

    Args:
        roles: From shallow to deep: a list names the same roles on both sides, a mapping goes from the
            student's role to the teacher's. None as published: all stages and the pooled vector, the teacher's
            stages before their ReLU.
        middle: Most channels of the mixtures; they have no more than the student's deepest feature.
    """

    called = "ReviewKD"

    def __init__(self, roles: Roles | None, middle: PositiveInt):
        super().__init__(roles)
        self.middle = middle
        self.fusions = nn.ModuleList()

    def default_pairs(self, student: Shapes, teacher: Shapes) -> Pairs:
        return (*inner_pairs(student, teacher, preact="teacher"), ("pooled", "pooled"))

    def build(self, student: Shapes, teacher: Shapes | None, spec: DataSpec) -> None:
        shapes = []
        for both, (mine, theirs) in zip(self.shapes(student, teacher), self.pairs, strict=True):
            if any(len(shape) not in (1, 3) for shape in both):
                raise ValueError(
                    f"ReviewKD reads maps [B, C, H, W] and vectors [B, C]; without the batch axis, the student's "
                    f"'{mine}' has shape {both[0]}, the teacher's '{theirs}' {both[1]}"
                )
            shapes.append(both)
        middle, last = min(self.middle, shapes[-1][0][0]), len(shapes) - 1
        self.fusions = nn.ModuleList(
            _Fusion(mine[0], middle, theirs[0], i < last, i == 0) for i, (mine, theirs) in enumerate(shapes)
        )

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch, progress: Progress) -> Tensor:
        rows, mixture = [], None
        pairs = [(_as_map(mine), _as_map(theirs)) for mine, theirs in self.features(student, teacher)]
        for fusion, (mine, theirs) in zip(reversed(self.fusions), reversed(pairs), strict=True):
            predicted, mixture = fusion(mine, mixture, theirs.shape[2:])
            rows.append(hierarchical_distance(predicted, theirs))
        return torch.stack(rows).sum(0)


def _as_map(feature: Tensor) -> Tensor:
    return feature[:, :, None, None] if feature.ndim == 2 else feature
