"""FitNets: the student's features predict the teacher's."""

from torch import Tensor, nn

from kdx.core.batch import Batch
from kdx.core.outputs import Outputs, Shapes
from kdx.core.schedule import Progress
from kdx.core.spec import DataSpec
from kdx.losses.base.numerics import full_precision
from kdx.losses.base.pairs import Paired


@full_precision
def hint(student_features: Tensor, teacher_features: Tensor) -> Tensor:
    """Mean squared difference of features, over all axes but the batch.

    Args:
        student_features: [B, ...], already in the teacher's shape.
        teacher_features: [B, ...]; gets no gradient.

    Returns:
        [B].

    References:
        Romero, Ballas, Kahou, Chassang, Gatta, Bengio, "FitNets: Hints for Thin Deep Nets", 2015.
        https://arxiv.org/abs/1412.6550

    Example:
        >>> hint(torch.zeros(1, 2, 2), torch.full((1, 2, 2), 3.0))
        tensor([9.])
    """
    return (student_features - teacher_features.detach()).square().flatten(1).mean(1)


def map_adapter(student_shape: tuple[int, ...], teacher_shape: tuple[int, ...]) -> nn.Sequential:
    """Convolution, batch norm and ReLU from the student's map to the teacher's shape.

    The kernel follows from the ratio of the sizes: 3 x 3 with stride 2 where the student's map is twice as large,
    transposed 4 x 4 with stride 2 where it is half as large, else a valid convolution of the size that removes the
    difference (1 x 1 where the sizes are equal). A student's map that is smaller otherwise is first resampled to the
    teacher's size, bilinearly, and mapped by a 1 x 1 convolution.

    Args:
        student_shape: (C, H, W).
        teacher_shape: (C, H, W).

    Example:
        >>> map_adapter((16, 8, 8), (32, 4, 4))(torch.zeros(2, 16, 8, 8)).shape
        torch.Size([2, 32, 4, 4])
        >>> map_adapter((16, 2, 2), (32, 7, 7))(torch.zeros(2, 16, 2, 2)).shape
        torch.Size([2, 32, 7, 7])
    """
    (s_channels, *s_size), (t_channels, *t_size) = student_shape, teacher_shape
    if s_size == [2 * t for t in t_size]:
        conv = nn.Conv2d(s_channels, t_channels, kernel_size=3, stride=2, padding=1)
    elif [2 * s for s in s_size] == t_size:
        conv = nn.ConvTranspose2d(s_channels, t_channels, kernel_size=4, stride=2, padding=1)
    elif all(s >= t for s, t in zip(s_size, t_size, strict=True)):
        height, width = (1 + s - t for s, t in zip(s_size, t_size, strict=True))
        conv = nn.Conv2d(s_channels, t_channels, kernel_size=(height, width))
    else:
        resampled = nn.Upsample((t_size[0], t_size[1]), mode="bilinear")
        conv = nn.Sequential(resampled, nn.Conv2d(s_channels, t_channels, kernel_size=1))
    return nn.Sequential(conv, nn.BatchNorm2d(t_channels), nn.ReLU())


class FitNet(Paired):
    """Mean squared difference between the adapted student's feature and the teacher's.

    The adapter is trained with the student: `map_adapter` for maps, a linear layer for vectors.

    Args:
        student_role: The student's feature, the guided layer.
        teacher_role: The teacher's feature, the hint.
    """

    called = "FitNet"
    adapter: nn.Module

    def __init__(self, student_role: str, teacher_role: str):
        super().__init__({student_role: teacher_role})

    def build(self, student: Shapes, teacher: Shapes | None, spec: DataSpec) -> None:
        ((mine, hinted),) = self.shapes(student, teacher)
        ((role, other),) = self.pairs
        if len(mine) != len(hinted) or len(mine) not in (1, 3):
            raise ValueError(
                f"FitNet matches a map with a map or a vector with a vector; without the batch axis, the student's "
                f"'{role}' has shape {mine}, the teacher's '{other}' {hinted}"
            )
        self.adapter = map_adapter(mine, hinted) if len(mine) == 3 else nn.Linear(mine[0], hinted[0])

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch, progress: Progress) -> Tensor:
        ((mine, theirs),) = self.features(student, teacher)
        return hint(self.adapter(mine), theirs)
