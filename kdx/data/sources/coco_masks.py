"""Images and masks of a COCO annotation file, as one class of each pixel."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kdx.core.ranges import Count, OpenFraction
from kdx.core.seed import generator
from kdx.data.dataset import missing
from kdx.data.sets import DataError, TensorSet
from kdx.data.sources.decode import decode
from kdx.data.sources.shape_masks import MaskedImages


@dataclass(frozen=True, kw_only=True)
class CocoMasks(MaskedImages):
    """COCO images and the classes of their pixels, both resized to one size; the file is split into train and test.

    Class 0 is the background, class i + 1 the i-th category of the file. Where objects overlap, the smaller one is on
    top. Pixels of a crowd have no class (-1). Needs the extra `detection`.

    Attributes:
        root: Folder of the data set.
        annotations: Path of the annotation file in it.
        images: Folder of the images in it.
        test_fraction: Share of the images in the test set.
        split_seed: Seed that chooses them.
    """

    root: str
    annotations: str
    images: str
    test_fraction: OpenFraction
    split_seed: Count

    def files(self) -> Mapping[str, Sequence[str]]:
        root = Path(self.root)
        found = [root / self.annotations, *(root / self.images).glob("*")]
        return {self.root: sorted(str(path) for path in found if path.is_file())}

    def load(self) -> tuple[TensorSet, TensorSet]:
        path = Path(self.root) / self.annotations
        if not path.is_file():
            raise missing(path, f"the annotations of {self.name}", "unpack the COCO file there")
        try:
            told = json.loads(path.read_text())
            categories = sorted(category["id"] for category in told["categories"])
            infos = sorted(told["images"], key=lambda info: info["id"])
            by_image: dict[int, list[Any]] = {info["id"]: [] for info in infos}
            for one in told["annotations"]:
                by_image[one["image_id"]].append(one)
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path} is no COCO annotation file: {type(error).__name__} {error}") from error
        if len(categories) + 1 != self.num_classes:
            raise DataError(f"{path} has {len(categories)} categories, so num_classes must be {len(categories) + 1}")
        place = {category: i + 1 for i, category in enumerate(categories)}
        c, h, w = self.inputs.shape
        pictures = torch.empty(len(infos), h, w, c, dtype=torch.uint8)
        labels = torch.empty(len(infos), h, w, dtype=torch.int64)
        for i, info in enumerate(infos):
            file = Path(self.root) / self.images / info["file_name"]
            if not file.is_file():
                raise missing(file, f"an image of {self.name}", "unpack the images there")
            pictures[i] = _resized(decode(str(file), c), (h, w))
            labels[i] = _nearest(_classes(by_image[info["id"]], (info["height"], info["width"]), place), (h, w))
        order = torch.randperm(len(infos), generator=generator(self.split_seed, "coco_masks", "split"))
        tested = max(1, round(self.test_fraction * len(infos)))
        train, test = order[tested:].sort().values, order[:tested].sort().values
        whole = TensorSet(pictures, {"labels": labels}, 255)
        # both parts are sources of their own
        return tuple(TensorSet(whole.images[part], {"labels": labels[part]}, 255) for part in (train, test))  # pyright: ignore[reportReturnType]


def _classes(annotations: Sequence[Any], size: tuple[int, int], place: Mapping[int, int]) -> np.ndarray:
    """The class of each pixel, int64 [H, W], at the size of the file."""
    from kdx.core.errors import UserError

    try:
        from pycocotools import mask as rle
    except ImportError as error:
        raise UserError("masks of COCO files need pycocotools: install kdx[detection]") from error
    h, w = size
    labels = np.zeros((h, w), dtype=np.int64)
    for one in sorted(annotations, key=lambda one: (one["iscrowd"], -one["area"])):
        shape = one["segmentation"]
        if isinstance(shape, list):
            coded = rle.merge(rle.frPyObjects(shape, h, w)) if shape else None
        else:
            coded = rle.frPyObjects(shape, h, w) if isinstance(shape["counts"], list) else shape
        if coded is not None:
            inside = rle.decode(coded).astype(bool)
            labels[inside & (labels == 0) if one["iscrowd"] else inside] = (
                -1 if one["iscrowd"] else place[one["category_id"]]
            )
    return labels


def _resized(image: np.ndarray, size: tuple[int, int]) -> Tensor:
    """An image uint8 [H, W, C] at another size, bilinear with antialiasing."""
    pixels = torch.tensor(image).permute(2, 0, 1)[None].float()
    out = torch.nn.functional.interpolate(pixels, size=size, mode="bilinear", align_corners=False, antialias=True)
    return out[0].permute(1, 2, 0).round().clamp(0, 255).to(torch.uint8)


def _nearest(labels: np.ndarray, size: tuple[int, int]) -> Tensor:
    """Classes [H, W] at another size, each that of the nearest pixel."""
    pixels = torch.from_numpy(labels)[None, None].float()
    return torch.nn.functional.interpolate(pixels, size=size, mode="nearest-exact")[0, 0].long()
