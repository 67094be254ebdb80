"""Objects in the format of COCO: one JSON file of images, annotations and categories for each split."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from kdx.core.errors import reason
from kdx.core.ranges import Count, OpenFraction
from kdx.core.seed import generator
from kdx.data.dataset import missing
from kdx.data.encoded import ImageFiles
from kdx.data.scenes import Objects, SceneDataset, SceneSet
from kdx.data.sets import DataError


@dataclass(frozen=True, kw_only=True)
class Coco(SceneDataset):
    """`root/folder/annotations/*.json` with images in folders; boxes are x, y, width, height in the files.

    Classes are found by the name of their category; annotations of other categories are left out, and a line says so.
    Images without objects stay, as in COCO's own evaluation. A finished run is compared with the annotation files,
    not with the images.

    Attributes:
        root: Folder of all data sets.
        folder: The data set's folder in `root`.
        train_file, test_file: Annotation files in that folder; equal files are split by `test_share`.
        train_images, test_images: Folders of the images in that folder.
        test_share: Share of the images that are the test set where both files are the same.
        split_seed: Seed of that split, independent of the run's seed.
        in_memory: Whether all images are decoded and resized once, at the start.
    """

    root: str
    folder: str
    train_file: str
    test_file: str
    train_images: str
    test_images: str
    test_share: OpenFraction
    split_seed: Count
    in_memory: bool

    @property
    def base(self) -> Path:
        """The data set's folder."""
        return Path(self.root).expanduser() / self.folder

    def files(self) -> Mapping[str, Sequence[str]]:
        found = [self.base / name for name in dict.fromkeys((self.train_file, self.test_file))]
        return {str(self.base): [str(path) for path in found]} if all(path.is_file() for path in found) else {}

    def load(self) -> tuple[SceneSet, SceneSet]:
        train = self._part(self.train_file, self.train_images, "the training set")
        if self.train_file == self.test_file:
            order = torch.randperm(len(train), generator=generator(self.split_seed, "coco", "split"))
            held = max(1, round(self.test_share * len(train)))
            test = train.subset(order[:held].sort().values)
            train = train.subset(order[held:].sort().values)
        else:
            test = self._part(self.test_file, self.test_images, "the test set")
        return (train.in_memory(), test.in_memory()) if self.in_memory else (train, test)

    def _part(self, file: str, images: str, where: str) -> SceneSet:
        path = self.base / file
        if not path.is_file():
            raise missing(path, self.name, "download the images and annotations from https://cocodataset.org")
        paths, sizes, objects = read_coco(path, self.base / images, self.classes)
        return self.fit(ImageFiles(paths), torch.tensor(sizes), objects, where)


def read_coco(
    path: Path, images: Path, classes: Sequence[str]
) -> tuple[list[str], list[tuple[int, int]], list[Objects]]:
    """Paths of the images, their height and width, and their objects, in the order of the images' ids.

    Args:
        path: The annotation file.
        images: Folder of the images.
        classes: Names of the categories to read.

    Raises:
        DataError: The file is no annotation file, or a class is no category of it.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        names = {entry["id"]: entry["name"] for entry in content["categories"]}
        entries = sorted(content["images"], key=lambda entry: entry["id"])
        of_image: dict[Any, list[Any]] = {entry["id"]: [] for entry in entries}
        for annotation in content["annotations"]:
            of_image[annotation["image_id"]].append(annotation)
        if absent := [name for name in classes if name not in names.values()]:
            raise DataError(f"{path} has no category '{absent[0]}'; it has: {', '.join(list(names.values())[:8])}, ...")
        label = {key: classes.index(name) for key, name in names.items() if name in classes}
        objects = [_objects(of_image[entry["id"]], label) for entry in entries]
        sizes = [(int(entry["height"]), int(entry["width"])) for entry in entries]
        return [str(images / entry["file_name"]) for entry in entries], sizes, objects
    except (OSError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} is no annotation file in COCO's format: {reason(error)}") from error


def _objects(annotations: Sequence[Any], label: Mapping[Any, int]) -> Objects:
    mine = [a for a in annotations if a["category_id"] in label]
    boxes = [[x, y, x + w, y + h] for x, y, w, h in (a["bbox"] for a in mine)]
    areas = [float(a["area"]) if "area" in a else float(a["bbox"][2] * a["bbox"][3]) for a in mine]
    return Objects.of(boxes, [label[a["category_id"]] for a in mine], [bool(a.get("iscrowd", 0)) for a in mine], areas)
