"""FGD: objects and background of a map weigh alike, whatever their sizes; beside it the maps with their context."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdx.core.batch import Batch
from kdx.core.outputs import Outputs, Shapes
from kdx.core.ranges import NonNegative, Positive
from kdx.core.schedule import Progress, Schedule, at
from kdx.core.spec import DataSpec
from kdx.losses.base.numerics import full_precision
from kdx.losses.base.pairs import Paired
from kdx.losses.base.roles import Roles
from kdx.losses.detection.context import ContextBlock, context_distance
from kdx.losses.detection.own import ONLY_BOXES


def cell_weights(
    boxes: Tensor, labels: Tensor, cells: tuple[int, int], shape: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Weights of the cells of a map for objects and for background, each [B, H, W].

    A cell whose object covers n cells weighs 1 / n, in several objects as in the smallest; a cell of the background
    one over the number of such cells.

    Args:
        boxes: x1, y1, x2, y2 in pixels of the input, [B, N, 4].
        labels: Classes, -1 for padding, [B, N].
        cells: H, W.
        shape: Height and width of the input.

    Example:
        >>> box, label = torch.tensor([[[0.0, 0.0, 4.0, 2.0]]]), torch.tensor([[0]])
        >>> cell_weights(box, label, (2, 2), (4, 4))
        (tensor([[[0.5000, 0.5000],
                 [0.0000, 0.0000]]]), tensor([[[0.0000, 0.0000],
                 [0.5000, 0.5000]]]))
    """
    (h, w), device = cells, boxes.device
    low = torch.stack([boxes[..., 0] * w / shape[1], boxes[..., 1] * h / shape[0]], -1).floor()
    high = torch.stack([boxes[..., 2] * w / shape[1], boxes[..., 3] * h / shape[0]], -1).ceil()
    y, x = torch.arange(h, device=device), torch.arange(w, device=device)
    across = (x >= low[..., :1]) & (x < high[..., :1])
    down = (y >= low[..., 1:]) & (y < high[..., 1:])
    inside = down[..., None] & across[..., None, :] & (labels >= 0)[..., None, None]
    share = inside / inside.sum((2, 3), keepdim=True).clamp(min=1)
    objects = share.amax(1)
    behind = (objects == 0).to(objects.dtype)
    return objects, behind / behind.sum((1, 2), keepdim=True).clamp(min=1)


def attention(maps: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Activity of a map by position, [B, H, W] with sum H * W, and by channel, [B, C] with sum C.

    Example:
        >>> places, channels = attention(torch.ones(1, 2, 3, 3), 0.5)
        >>> places.sum(), channels.sum()
        (tensor(9.), tensor(2.))
    """
    size, height, width = maps.shape[1], *maps.shape[2:]
    places = F.softmax(maps.abs().mean(1).flatten(1) / temperature, 1) * (height * width)
    channels = F.softmax(maps.abs().mean((2, 3)) / temperature, 1) * size
    return places.unflatten(1, (height, width)), channels


@full_precision
def focal_distance(
    student: Tensor,
    teacher: Tensor,
    objects: Tensor,
    behind: Tensor,
    temperature: float,
    object_weight: float,
    background_weight: float,
    attention_weight: float,
) -> Tensor:
    """Weighted squared distance on objects and on background, and distance of the attention, [B].

    Args:
        student: [B, C, H, W], with the teacher's shape.
        teacher: [B, C, H, W]; gets no gradient.
        objects, behind: See `cell_weights`.
        temperature: Of the attention.
        object_weight, background_weight, attention_weight: Of the three parts.

    References:
        Yang, Li, Jiang, Gong, Yuan, Zhao, Yuan, "Focal and Global Knowledge Distillation for Detectors", 2022.
        https://arxiv.org/abs/2111.11837 (its focal part)

    Example:
        >>> maps, cells = torch.randn(2, 3, 4, 4), torch.full((2, 4, 4), 1 / 16)
        >>> focal_distance(maps, maps, cells, cells, 0.5, 1.0, 0.5, 1.0)
        tensor([0., 0.])
    """
    teacher = teacher.detach()
    places, channels = attention(teacher, temperature)
    mine = attention(student, temperature)
    gap = ((student - teacher).square() * channels[:, :, None, None]).sum(1) * places
    found = ((object_weight * objects + background_weight * behind) * gap).sum((1, 2))
    away = (mine[0] - places).abs().sum((1, 2)) + (mine[1] - channels).abs().sum(1)
    return found + attention_weight * away


class FGD(Paired):
    """Focal and global distillation of maps, summed over pairs.

    The focal part weighs cells by the boxes of the objects; the global part compares the maps after a `ContextBlock` of
    either side, both of which learn. Where the numbers of channels differ, a 1 x 1 convolution maps the student's
    feature to the teacher's channels.

    Args:
        roles: A list names the same roles on both sides, a mapping goes from the student's role to the teacher's; None
            for all stages but the stem.
        temperature: Of the attention; a number or a schedule.
        object_weight, background_weight, attention_weight: Of the focal parts, see `focal_distance`.
        context_weight: Of the global part; 0 leaves it out.

    References:
        Yang et al., as in `focal_distance`.
    """

    called = "FGD"
    tasks = ONLY_BOXES

    def __init__(
        self,
        roles: Roles | None,
        temperature: Positive | Schedule,
        object_weight: NonNegative,
        background_weight: NonNegative,
        attention_weight: NonNegative,
        context_weight: NonNegative,
    ):
        super().__init__(roles)
        self.temperature = temperature
        self.parts = (object_weight, background_weight, attention_weight)
        self.context_weight = context_weight
        self.align, self.contexts = nn.ModuleList(), nn.ModuleList()

    def build(self, student: Shapes, teacher: Shapes | None, spec: DataSpec) -> None:
        aligns = []
        for (mine, theirs), (role, other) in zip(self.maps(student, teacher), self.pairs, strict=True):
            if mine[1:] != theirs[1:]:
                raise ValueError(
                    f"FGD compares maps of one size, and the student's '{role}' is {list(mine[1:])}, the teacher's "
                    f"'{other}' {list(theirs[1:])}"
                )
            aligns.append(nn.Identity() if mine[0] == theirs[0] else nn.Conv2d(mine[0], theirs[0], 1))
        self.align = nn.ModuleList(aligns)
        if self.context_weight:
            widths = [theirs[0] for _, theirs in self.maps(student, teacher)]
            self.contexts = nn.ModuleList(nn.ModuleList([ContextBlock(c), ContextBlock(c)]) for c in widths)
        self.shape = (spec.input_shape[1], spec.input_shape[2])

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch, progress: Progress) -> Tensor:
        rows, temperature = [], at(self.temperature, progress)
        boxes, labels = batch.target("boxes"), batch.target("box_labels")
        for i, (align, (mine, theirs)) in enumerate(zip(self.align, self.features(student, teacher), strict=True)):
            weights = cell_weights(boxes, labels, (theirs.shape[2], theirs.shape[3]), self.shape)
            own = align(mine)
            rows.append(focal_distance(own, theirs, *weights, temperature, *self.parts))
            if self.context_weight:
                here, there = self.contexts[i]  # pyright: ignore[reportGeneralTypeIssues] - a list of two
                rows.append(self.context_weight * context_distance(here(own), there(theirs.detach())))
        return torch.stack(rows).sum(0)
