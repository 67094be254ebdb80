"""CAT-KD: the positions at which each class is recognised."""

from torch import Tensor, nn
from torch.nn import functional as F

from kdx.core.batch import Batch
from kdx.core.functional import unit
from kdx.core.outputs import Outputs, Shapes
from kdx.core.ranges import PositiveInt
from kdx.core.schedule import Progress
from kdx.core.spec import DataSpec
from kdx.core.task import ONLY_CLASSES
from kdx.losses.base.heads import local_classifier
from kdx.losses.base.numerics import full_precision
from kdx.losses.base.pairs import Paired


@full_precision
def class_activation_maps(features: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The classifier applied at every position, so that the mean over positions gives the logits.

    Args:
        features: The last map, whose mean the classifier reads, [B, D, H, W].
        weight: [C, D].
        bias: [C], or None.

    Returns:
        [B, C, H, W].

    Example:
        >>> features, head = torch.randn(2, 4, 3, 3), nn.Linear(4, 5)
        >>> maps = class_activation_maps(features, head.weight, head.bias)
        >>> torch.allclose(maps.mean((2, 3)), head(features.mean((2, 3))), atol=1e-5)
        True
    """
    return F.conv2d(features, weight[:, :, None, None], bias)


@full_precision
def map_distance(student_maps: Tensor, teacher_maps: Tensor, side: int, normalize: bool) -> Tensor:
    """Mean squared difference of pooled class activation maps.

    Args:
        student_maps: [B, C, H, W].
        teacher_maps: [B, C, H', W']; gets no gradient.
        side: Height and width that both are pooled to.
        normalize: Whether each pooled map is scaled to length 1.

    Returns:
        [B].

    References:
        Guo, Yan, Li, Lin, "Class Attention Transfer Based Knowledge Distillation", 2023.
        https://arxiv.org/abs/2304.12777

    Example:
        >>> maps = torch.randn(2, 5, 4, 4)
        >>> map_distance(maps, 3 * maps, 2, normalize=True).abs().max() < 1e-12
        tensor(True)
    """
    pair = (F.adaptive_avg_pool2d(maps, side).flatten(2) for maps in (student_maps, teacher_maps.detach()))
    mine, theirs = (unit(maps, 2) if normalize else maps for maps in pair)
    return (mine - theirs).square().mean((1, 2))


class CATKD(Paired):
    """Distance of the two networks' class activation maps; gradients reach the student's classifier too.

    Args:
        student_role: The map whose mean the student's classifier reads.
        teacher_role: The map whose mean the teacher's classifier reads.
        side: Height and width to which the maps are pooled.
        normalize: Whether each pooled map is scaled to length 1. The value, and so the weight, depends on it.
        bias: Whether the maps contain the classifiers' biases. The authors' classifiers have none.
    """

    tasks = ONLY_CLASSES
    called = "CAT-KD"

    def __init__(
        self, student_role: str, teacher_role: str, side: PositiveInt, normalize: bool = True, bias: bool = True
    ):
        super().__init__({student_role: teacher_role})
        self.side, self.normalize, self.bias = side, normalize, bias
        # a tuple, so that they do not become submodules: they belong to the networks
        self._networks: tuple[nn.Module | None, ...] = (None, None)
        self._heads: tuple[nn.Linear, ...] = ()

    def attach(self, student: nn.Module, teacher: nn.Module | None) -> None:
        self._networks = (student, teacher)

    def build(self, student: Shapes, teacher: Shapes | None, spec: DataSpec) -> None:
        (shapes,) = self.maps(student, teacher)
        sides = zip(self._networks, self.pairs[0], shapes, ("student", "teacher"), strict=True)
        self._heads = tuple(
            local_classifier(network, role, shape[0], whose, self.called) for network, role, shape, whose in sides
        )

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch, progress: Progress) -> Tensor:
        (pair,) = self.features(student, teacher)
        mine, theirs = (
            class_activation_maps(feature, head.weight, head.bias if self.bias else None)
            for feature, head in zip(pair, self._heads, strict=True)
        )
        return map_distance(mine, theirs, self.side, self.normalize)
