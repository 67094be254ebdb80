"""Made-up scenes of geometric shapes with the class of every pixel, for semantic segmentation."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kdx.core.ranges import Count, NonNegative, PartialFraction, PositiveInt
from kdx.core.seed import generator
from kdx.data.dataset import ImageDataset
from kdx.data.sets import DataError, ExampleSet, TensorSet
from kdx.tasks.pixels import Pixels

SHAPES = ("square", "disc", "triangle", "diamond", "ring", "cross")


@dataclass(frozen=True, kw_only=True)
class MaskedImages(ImageDataset):
    """A data set of images with the class of each pixel, as the target `labels` [H, W]; -1 for a pixel without one.

    Attributes:
        num_classes: Number of classes C, with the background as class 0.
    """

    num_classes: PositiveInt

    @property
    def task(self) -> Pixels:
        _, h, w = self.inputs.shape
        return Pixels(self.num_classes, (h, w))

    def check(self, split: str, data: ExampleSet) -> None:
        """Raise DataError if a pixel has a class out of range."""
        low, high = (int(v) for v in torch.aminmax(data.targets["labels"]))
        if low < -1 or high >= self.num_classes:
            wrong = low if low < -1 else high
            raise DataError(
                f"the {split} set of {self.name} has a pixel of class {wrong}, outside 0..{self.num_classes - 1} "
                f"(num_classes is {self.num_classes}; -1 stands for no class)"
            )


@dataclass(frozen=True, kw_only=True)
class ShapeMasks(MaskedImages):
    """Shapes of random colour, size and place on a textured background: any size, no files, the same everywhere.

    The class of a pixel is the shape of the last object drawn there, 1 to 6, or 0 for the background. Colour tells
    nothing.

    Attributes:
        objects: Largest number of objects of a scene; each scene has at least one.
        train_size: Number of training scenes.
        test_size: Number of test scenes.
        noise: Standard deviation of the pixel noise, in units where white is 1.
        unlabelled: Share of training pixels whose class is removed.
        seed: Seed of the scenes.
    """

    objects: PositiveInt
    train_size: PositiveInt
    test_size: PositiveInt
    noise: NonNegative
    unlabelled: PartialFraction
    seed: Count

    def load(self) -> tuple[TensorSet, TensorSet]:
        if self.num_classes != len(SHAPES) + 1:
            raise DataError(f"num_classes of {self.name} is {len(SHAPES) + 1}: {', '.join(SHAPES)} and the background")
        train = self._make("train", self.train_size, self.unlabelled)
        return train, self._make("test", self.test_size, 0.0)

    def _make(self, split: str, size: int, unlabelled: float) -> TensorSet:
        c, h, w = self.inputs.shape
        g = generator(self.seed, "shape_masks", split)
        images, labels = torch.empty(size, h, w, c, dtype=torch.uint8), torch.zeros(size, h, w, dtype=torch.int64)
        for i in range(size):
            scene, labels[i] = draw_scene(g, (c, h, w), self.objects)
            noisy = scene + self.noise * torch.randn(h, w, c, generator=g)
            images[i] = noisy.clamp_(0, 1).mul_(255).round_().to(torch.uint8)
        if unlabelled:
            labels[torch.rand(labels.shape, generator=g) < unlabelled] = -1
        return TensorSet(images, {"labels": labels}, 255)


def draw_scene(g: torch.Generator, shape: Sequence[int], objects: int) -> tuple[Tensor, Tensor]:
    """A scene without noise, float [H, W, C] in [0, 1], and the class of each pixel, int64 [H, W]."""
    c, h, w = shape
    coarse = torch.rand(1, c, 4, 4, generator=g) * 0.5 + 0.25
    scene = torch.nn.functional.interpolate(coarse, size=(h, w), mode="bilinear", align_corners=False)[0]
    scene, labels = scene.permute(1, 2, 0).contiguous(), torch.zeros(h, w, dtype=torch.int64)
    for _ in range(int(torch.randint(1, objects + 1, (), generator=g))):
        kind = int(torch.randint(len(SHAPES), (), generator=g))
        radius = (0.12 + 0.13 * float(torch.rand((), generator=g))) * min(h, w)
        y, x = (radius + float(torch.rand((), generator=g)) * (side - 2 * radius) for side in (h, w))
        inside = shape_mask(SHAPES[kind], (h, w), (y, x), radius)
        scene[inside] = torch.rand(c, generator=g)
        labels[inside] = kind + 1
    return scene, labels


def shape_mask(shape: str, size: tuple[int, int], centre: tuple[float, float], radius: float) -> Tensor:
    """The pixels whose centre lies in a shape, bool [H, W].

    Args:
        shape: One of `SHAPES`.
        size: (H, W).
        centre: (y, x), where the pixel (0, 0) has the centre (0.5, 0.5).
        radius: Half the height of the shape.

    Example:
        >>> shape_mask("cross", (3, 3), (1.5, 1.5), 1.5).int()
        tensor([[0, 1, 0],
                [1, 1, 1],
                [0, 1, 0]], dtype=torch.int32)
    """
    y, x = torch.meshgrid(*(torch.arange(side) + 0.5 for side in size), indexing="ij")
    y, x = (y - centre[0]) / radius, (x - centre[1]) / radius
    square = (y.abs() <= 1) & (x.abs() <= 1)
    disc = y.square() + x.square()
    return {
        "square": square,
        "disc": disc <= 1,
        "triangle": square & (x.abs() <= (y + 1) / 2),
        "diamond": y.abs() + x.abs() <= 1,
        "ring": (disc <= 1) & (disc >= 0.25),
        "cross": square & ((x.abs() <= 0.4) | (y.abs() <= 0.4)),
    }[shape]
