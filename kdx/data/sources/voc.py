"""Objects in the format of Pascal VOC: an XML file for each image, and lists of names for each split."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

import torch

from kdx.core.errors import reason
from kdx.core.notice import notice
from kdx.data.dataset import missing
from kdx.data.encoded import ImageFiles
from kdx.data.scenes import Objects, SceneDataset, SceneSet
from kdx.data.sets import DataError


@dataclass(frozen=True, kw_only=True)
class Voc(SceneDataset):
    """`root/folder/{Annotations,ImageSets/Main,JPEGImages}`, the layout of Pascal VOC.

    A box covers xmin - `first_pixel` to xmax. Objects marked as difficult are ignored in
    training and evaluation, as crowds are.

    Attributes:
        root: Folder of all data sets.
        folder: The data set's folder in `root`.
        train_list, test_list: Names of lists in `ImageSets/Main`, without ".txt".
        first_pixel: Number of the first pixel: 1 in Pascal VOC, where xmax is part of the box; 0 in other files,
            where xmax is its edge.
        in_memory: Whether all images are decoded and resized once, at the start.
    """

    root: str
    folder: str
    train_list: str
    test_list: str
    first_pixel: Literal[0, 1]
    in_memory: bool

    @property
    def base(self) -> Path:
        """The data set's folder."""
        return Path(self.root).expanduser() / self.folder

    def files(self) -> Mapping[str, Sequence[str]]:
        try:
            names = [name for part in (self.train_list, self.test_list) for name in self._names(part)]
        except DataError:
            return {}  # loading reports it
        paths = [self.base / "Annotations" / f"{name}.xml" for name in names]
        paths += [self.base / "JPEGImages" / f"{name}.jpg" for name in names]
        return {str(self.base): [str(path) for path in paths if path.is_file()]}

    def load(self) -> tuple[SceneSet, SceneSet]:
        if self.train_list == self.test_list:
            raise DataError(f"dataset.test_list={self.test_list} is the training list; name the list of the test set")
        train, test = (self._part(name, where) for name, where in self._lists())
        return (train.in_memory(), test.in_memory()) if self.in_memory else (train, test)

    def _lists(self) -> list[tuple[str, str]]:
        return [(self.train_list, "the training set"), (self.test_list, "the test set")]

    def _names(self, part: str) -> list[str]:
        path = self.base / "ImageSets" / "Main" / f"{part}.txt"
        if not path.is_file():
            raise missing(path, self.name, "lay it out as Annotations/*.xml, ImageSets/Main/*.txt and JPEGImages/*.jpg")
        # lists of a class have a second column
        return [line.split()[0] for line in path.read_text().splitlines() if line.strip()]

    def _part(self, part: str, where: str) -> SceneSet:
        paths, sizes, objects, unknown = [], [], [], 0
        for name in self._names(part):
            file, size, own, left = read_voc(self.base / "Annotations" / f"{name}.xml", self.classes, self.first_pixel)
            paths.append(str(self.base / "JPEGImages" / file))
            sizes.append(size)
            objects.append(own)
            unknown += left
        if not paths:
            raise DataError(f"{where} of {self.name} is empty: {part}.txt names no image")
        if unknown:
            notice(f"{where} of {self.name}: {unknown} objects of other classes than dataset.classes are left out")
        return self.fit(ImageFiles(paths), torch.tensor(sizes), objects, where)


def read_voc(path: Path, classes: Sequence[str], first_pixel: int) -> tuple[str, tuple[int, int], Objects, int]:
    """Name of the image file, its height and width, its objects, and the number of objects of other classes.

    Args:
        path: The annotation.
        classes: Names of the classes to read.
        first_pixel: See `Voc`.

    Raises:
        DataError: The file is missing or no annotation of Pascal VOC.
    """
    try:
        root = ElementTree.parse(path).getroot()
        height, width = (int(_text(root, f"size/{key}")) for key in ("height", "width"))
        if min(height, width) < 1:
            raise ValueError(f"the size is {width} x {height}")
        boxes, labels, difficult, unknown = [], [], [], 0
        for entry in root.iter("object"):
            name = _text(entry, "name")
            if name not in classes:
                unknown += 1
                continue
            low = [float(_text(entry, f"bndbox/{axis}min")) - first_pixel for axis in "xy"]
            high = [float(_text(entry, f"bndbox/{axis}max")) for axis in "xy"]
            boxes.append([*low, *high])
            labels.append(classes.index(name))
            difficult.append(entry.findtext("difficult") == "1")
        return _text(root, "filename"), (height, width), Objects.of(boxes, labels, difficult), unknown
    except (OSError, ElementTree.ParseError, ValueError) as error:
        raise DataError(f"{path} is no annotation of Pascal VOC: {reason(error)}") from error


def _text(entry: ElementTree.Element, path: str) -> str:
    found = entry.findtext(path)
    if found is None:
        raise ValueError(f"it has no {path}")
    return found
