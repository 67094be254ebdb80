"""Images of any size with objects: the set, and the config object of its data sets."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from kdx.core.notice import notice
from kdx.core.ranges import PositiveInt
from kdx.core.spec import Scenes
from kdx.data.dataset import ImageDataset
from kdx.data.encoded import Encoded, ImageFiles, resized
from kdx.data.sets import DataError, ExampleSet, ImageSet
from kdx.tasks.boxes import Boxes


class Objects(NamedTuple):
    """The objects of one image, in its own pixels.

    Attributes:
        boxes: x1, y1, x2, y2, float64 [n, 4].
        labels: Class of each object, int64 [n].
        crowd: Whether it is ignored, bool [n].
        areas: Its area, float64 [n].
    """

    boxes: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    areas: np.ndarray

    @classmethod
    def of(
        cls,
        boxes: Sequence[Sequence[float]],
        labels: Sequence[int],
        crowd: Sequence[bool],
        areas: Sequence[float] | None = None,
    ) -> "Objects":
        """From lists; without `areas`, those of the boxes."""
        corners = np.array(boxes, dtype=np.float64).reshape(-1, 4)
        own = (corners[:, 2] - corners[:, 0]) * (corners[:, 3] - corners[:, 1])
        size = own if areas is None else np.array(areas, dtype=np.float64)
        return cls(corners, np.array(labels, dtype=np.int64), np.array(crowd, dtype=bool), size)


class Dropped:
    """Counts boxes without an area inside their image, which are left out.

    Example:
        >>> objects = Objects.of([[0, 0, 4, 4], [3, 1, 3, 2]], [0, 1], [False, False])
        >>> Dropped().clipped(objects, 4, 4, "image 7").labels.tolist()
        [0]
    """

    def __init__(self):
        self.number, self.first = 0, ""

    def clipped(self, objects: Objects, height: int, width: int, where: str) -> Objects:
        """The objects with boxes clipped to their image, without those of no area."""
        high = np.array([width, height, width, height])
        boxes = np.clip(objects.boxes, 0, high)
        good = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        if not good.all():
            self.first = self.first or f"{objects.boxes[~good][0].tolist()} of {where}"
            self.number += int((~good).sum())
        return Objects(boxes[good], objects.labels[good], objects.crowd[good], objects.areas[good])

    def report(self, what: str) -> None:
        """Say in one line how many boxes were left out, if any."""
        if self.number:
            notice(f"{what}: {self.number} boxes without an area are left out, such as {self.first}")


class SceneSet(ImageSet):
    """Images with objects, each fitted into one shape: resized to the largest size inside, padded right and below.

    Targets are those of `kdx.tasks.boxes.Boxes`, in pixels of the fitted image.

    Args:
        source: The images, in files or in memory.
        targets: See `fit`.
        sizes: Height and width of each image after resizing, int64 [N, 2].
        shape: (C, H, W) after padding.
        padding: Bytes of a padded pixel, [C].
        held: Fitted images in memory, uint8 [N, H, W, C]; None to read them at each access.
        origin, pool: See `ExampleSet`.
    """

    def __init__(
        self,
        source: Encoded | None,
        targets: dict[str, Tensor],
        sizes: Tensor,
        shape: tuple[int, int, int],
        padding: np.ndarray,
        held: Tensor | None = None,
        origin: Tensor | None = None,
        pool: int | None = None,
    ):
        super().__init__(targets, 255, origin, pool)
        self.source, self.sizes, self.shape, self.padding, self.held = source, sizes, shape, padding, held
        self.decodes = held is None

    def subset(self, indices: Tensor) -> "SceneSet":
        targets, origin = self.at(indices)
        source = None if self.source is None else self.source.subset(indices)
        held = None if self.held is None else self.held[indices]
        return SceneSet(source, targets, self.sizes[indices], self.shape, self.padding, held, origin, self.pool)

    def stored(self, index: int) -> np.ndarray:
        """An image resized and not padded, uint8 [h, w, C]."""
        h, w = self.sizes[index].tolist()
        if self.held is not None:
            return self.held[index, :h, :w].numpy()
        pixels = self.whole(index)
        real, fitted = pixels.shape[0] / pixels.shape[1], h / w
        if min(real, fitted) * (1 + 1.5 / min(h, w)) < max(real, fitted):
            name = self.source.paths[index] if isinstance(self.source, ImageFiles) else f"image {index}"
            raise DataError(f"{name} has {pixels.shape[1]} x {pixels.shape[0]} pixels, its annotation another shape")
        return pixels if pixels.shape[:2] == (h, w) else resized(pixels, h, w)

    def rows(self, indices: Tensor) -> tuple[np.ndarray, np.ndarray]:
        if self.held is not None:
            return self.held.numpy(), indices.numpy()
        canvas = self.canvas(len(indices))
        for image, index in zip(canvas, indices.tolist(), strict=True):
            h, w = self.sizes[index].tolist()
            image[:h, :w] = self.stored(index)
        return canvas, np.arange(len(indices))

    def whole(self, index: int) -> np.ndarray:
        if self.source is None:
            return self.stored(index)
        return self.source.decode(index, self.shape[0])

    def canvas(self, size: int) -> np.ndarray:
        """Images of padding, uint8 [size, H, W, C]."""
        c, h, w = self.shape
        return np.broadcast_to(self.padding, (size, h, w, c)).copy()

    def in_memory(self) -> "SceneSet":
        """The same set with all images decoded and resized now."""
        held, _ = self.rows(torch.arange(len(self)))
        return SceneSet(
            None,
            self.targets,
            self.sizes,
            self.shape,
            self.padding,
            torch.from_numpy(held),
            self.origin,
            self.pool,
        )


@dataclass(frozen=True, kw_only=True)
class SceneDataset(ImageDataset):
    """A data set of images with objects.

    Attributes:
        num_classes: Number of classes C.
        classes: Their names.
    """

    num_classes: PositiveInt
    classes: Sequence[str]

    @property
    def task(self) -> Boxes:
        if len(self.classes) != self.num_classes or len(set(self.classes)) != self.num_classes:
            raise DataError(f"num_classes is {self.num_classes}, and classes has {len(set(self.classes))} names")
        return Boxes(tuple(self.classes))

    @property
    def inputs(self) -> Scenes:
        facts = super().inputs
        return Scenes(facts.shape, facts.mean, facts.std)

    def class_names(self) -> list[str]:
        """Name of each class."""
        return list(self.classes)

    @property
    def padding(self) -> np.ndarray:
        """Bytes of a padded pixel: the mean, which is 0 after normalisation up to rounding, uint8 [C]."""
        return np.rint(np.array(self.mean) * 255).clip(0, 255).astype(np.uint8)

    def fit(self, source: Encoded | None, sizes: Tensor, objects: Sequence[Objects], where: str) -> SceneSet:
        """The set of images of these sizes; boxes without an area are left out, and a line says so.

        Args:
            source: The images.
            sizes: Height and width of each, int64 [N, 2].
            objects: The objects of each.
            where: Name of the set in messages.
        """
        c, height, width = self.input_shape
        factor = torch.minimum(height / sizes[:, 0].double(), width / sizes[:, 1].double())
        fitted = (sizes * factor[:, None]).round().long().clamp(min=1)
        fitted = torch.minimum(fitted, torch.tensor([height, width]))
        scales = (fitted.double() / sizes.double()).flip(1)
        dropped = Dropped()
        clipped = [
            dropped.clipped(own, h, w, f"image {i}")
            for i, (own, (h, w)) in enumerate(zip(objects, sizes.tolist(), strict=True))
        ]
        dropped.report(f"{where} of {self.name}")
        targets = padded(clipped)
        targets["boxes"] = (targets["boxes"] * scales.repeat(1, 2)[:, None]).float()
        return SceneSet(source, {**targets, "scales": scales.float()}, fitted, (c, height, width), self.padding)

    def check(self, split: str, data: ExampleSet) -> None:
        labels = data.targets["box_labels"]
        if int(labels.max()) >= self.num_classes:
            raise DataError(
                f"the {split} set of {self.name} has the class {int(labels.max())}, num_classes is {self.num_classes}"
            )
        if not bool((labels >= 0).any()):
            raise DataError(f"the {split} set of {self.name} has no object")


def padded(objects: Sequence[Objects]) -> dict[str, Tensor]:
    """Targets of several images, padded to the largest number of objects: boxes float64, labels, crowd, areas.

    Example:
        >>> padded([Objects.of([[0, 0, 2, 2]], [1], [False]), Objects.of([], [], [])])["box_labels"]
        tensor([[ 1],
                [-1]])
    """
    most = max(1, *(len(own.labels) for own in objects)) if len(objects) else 1
    boxes = torch.zeros(len(objects), most, 4, dtype=torch.float64)
    labels = torch.full((len(objects), most), -1)
    crowd, areas = torch.zeros(len(objects), most, dtype=torch.bool), torch.zeros(len(objects), most)
    for i, own in enumerate(objects):
        n = len(own.labels)
        boxes[i, :n], labels[i, :n] = torch.from_numpy(own.boxes), torch.from_numpy(own.labels)
        crowd[i, :n], areas[i, :n] = torch.from_numpy(own.crowd), torch.from_numpy(own.areas).float()
    return {"boxes": boxes, "box_labels": labels, "crowd": crowd, "areas": areas}
