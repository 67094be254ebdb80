"""Made-up scenes: coloured shapes on a textured background, with exact boxes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from kdx.core.ranges import Count, Fraction, NonNegative, PartialFraction, PositiveInt
from kdx.core.seed import derive
from kdx.data.scenes import Objects, SceneDataset, SceneSet, padded
from kdx.data.sets import DataError

COLOURS = {"red": (200, 60, 50), "green": (60, 170, 70), "blue": (60, 80, 200), "yellow": (210, 190, 60)}
SHAPES = ("circle", "square", "triangle", "cross", "ring")
TRIES = 20  # places that are tried for an object before it is left out
Part = Literal["train", "test"]


@dataclass(frozen=True, kw_only=True)
class SyntheticScenes(SceneDataset):
    """Scenes of coloured shapes: any size, no files, the same on every machine.

    A class is a shape, or a colour and a shape as in "red_circle". Objects overlap by at most `overlap`. A scene may
    have none.

    Attributes:
        train_size: Number of training scenes.
        test_size: Number of test scenes.
        objects: Smallest and largest number of objects in a scene.
        sizes: Smallest and largest side of an object, as a share of the scene's shorter side.
        overlap: Largest intersection over union of two objects.
        noise: Standard deviation of the pixel noise, in units where white is 1.
        seed: Chooses everything.
    """

    train_size: PositiveInt
    test_size: PositiveInt
    objects: Sequence[Count]
    sizes: Sequence[Fraction]
    overlap: PartialFraction
    noise: NonNegative
    seed: Count

    def load(self) -> tuple[SceneSet, SceneSet]:
        for name in self.classes:
            parts = name.split("_")
            if parts[-1] not in SHAPES or (len(parts) == 2 and parts[0] not in COLOURS) or len(parts) > 2:
                raise DataError(
                    f"dataset.classes has '{name}'; a class is a shape ({', '.join(SHAPES)}), or a colour "
                    f"({', '.join(COLOURS)}) and a shape, as in red_circle"
                )
        if self.input_shape[0] != 3:
            raise DataError(f"made-up scenes have 3 channels, and dataset.input_shape is {list(self.input_shape)}")
        return self.make("train", self.train_size), self.make("test", self.test_size)

    def make(self, split: str, size: int) -> SceneSet:
        """A set of scenes; scene i is the same in sets of any size."""
        found = [self.scene(split, i) for i in range(size)]
        targets = padded([objects for _, objects in found])
        _, h, w = self.input_shape
        return SceneSet(
            None,
            {**targets, "boxes": targets["boxes"].float(), "scales": torch.ones(size, 2)},
            torch.tensor([h, w]).expand(size, 2).contiguous(),
            (3, h, w),
            self.padding,
            torch.from_numpy(np.stack([pixels for pixels, _ in found])),
        )

    def scene(self, split: str, number: int) -> tuple[np.ndarray, Objects]:
        """Pixels uint8 [H, W, 3] and objects of a scene."""
        draws = np.random.default_rng(derive(self.seed, "scenes", split, number))
        _, h, w = self.input_shape
        coarse = draws.uniform(60, 190, (6, 6, 3))
        grid = coarse[np.arange(h)[:, None] * 6 // h, np.arange(w)[None] * 6 // w]
        pixels = grid * 0.5 + 60
        boxes: list[list[float]] = []
        labels: list[int] = []
        for _ in range(int(draws.integers(self.objects[0], self.objects[1] + 1))):
            for _ in range(TRIES):
                label = int(draws.integers(self.num_classes))
                side = draws.uniform(self.sizes[0], self.sizes[1]) * min(h, w)
                centre = draws.uniform(side / 2, h - side / 2), draws.uniform(side / 2, w - side / 2)
                turn, shade = draws.uniform(-0.4, 0.4), draws.uniform(0.8, 1.15)
                own = draws.integers(len(COLOURS))
                mask = drawn(self.classes[label].split("_")[-1], h, w, centre, side, turn)
                box = tight(mask)
                if box is not None and all(_iou(box, other) <= self.overlap for other in boxes):
                    first = self.classes[label].split("_")[0]
                    colour = COLOURS[first] if first in COLOURS else list(COLOURS.values())[own]
                    pixels[mask] = np.array(colour) * shade
                    boxes.append(box)
                    labels.append(label)
                    break
        pixels += draws.normal(0, 255 * self.noise, pixels.shape)
        return pixels.clip(0, 255).round().astype(np.uint8), Objects.of(boxes, labels, [False] * len(labels))


def drawn(shape: str, height: int, width: int, centre: tuple[float, float], side: float, turn: float) -> np.ndarray:
    """Pixels whose centre lies in a shape, bool [height, width].

    Args:
        shape: One of `SHAPES`.
        height, width: Of the image.
        centre: y and x of the shape's centre.
        side: Its side, or diameter.
        turn: Rotation in radians.
    """
    y, x = np.mgrid[:height, :width] + 0.5
    y, x = (y - centre[0]) / (side / 2), (x - centre[1]) / (side / 2)
    x, y = np.cos(turn) * x + np.sin(turn) * y, np.cos(turn) * y - np.sin(turn) * x
    radius = np.hypot(x, y)
    if shape == "circle":
        return radius <= 1
    if shape == "ring":
        return (radius <= 1) & (radius >= 0.55)
    if shape == "square":
        return np.maximum(abs(x), abs(y)) <= 0.8
    if shape == "cross":
        return (np.minimum(abs(x), abs(y)) <= 0.3) & (np.maximum(abs(x), abs(y)) <= 0.95)
    return (y <= 0.8) & (y >= 2 * abs(x) - 0.95)


def tight(mask: np.ndarray) -> list[float] | None:
    """The smallest box around the true pixels of a mask [H, W]; None if there are none.

    Example:
        >>> tight(np.array([[False, False, True], [False, False, True]]))
        [2.0, 0.0, 3.0, 2.0]
    """
    if not mask.any():
        return None
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return [float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)]


def _iou(a: Sequence[float], b: Sequence[float]) -> float:
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    inside = max(w, 0) * max(h, 0)
    return inside / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inside)
