"""One folder of images per class: the layout of torchvision's ImageFolder and of ImageNet."""

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from kdx.core.ranges import PositiveInt
from kdx.data.dataset import LabelledImages, missing
from kdx.data.encoded import EncodedSet, ImageFiles
from kdx.data.sets import DataError, ImageSet

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp")


@dataclass(frozen=True, kw_only=True)
class ImageFolder(LabelledImages):
    """`root/folder/{train,test_folder}/<class>/**/<image>`; classes are numbered by name, as in torchvision.

    Attributes:
        root: Folder of all data sets.
        folder: The data set's folder in `root`.
        test_folder: The folder used as test set; many data sets publish labels only for "val".
        resize: Length of the short side after resizing, before the central crop to the input size.
        in_memory: Decode every image once at the start; for sets that fit into memory.
    """

    root: str
    folder: str
    test_folder: str
    resize: PositiveInt
    in_memory: bool

    def load(self) -> tuple[ImageSet, ImageSet]:
        base = Path(self.root).expanduser() / self.folder
        if not base.is_dir():
            raise missing(base, self.name, "lay it out as train/<class>/<image> and the same for the test set")
        classes = _classes(base / "train")
        if len(classes) != self.num_classes:
            raise DataError(f"{base / 'train'} has {len(classes)} classes, but num_classes is {self.num_classes}")
        train, test = (self._part(base / part, classes) for part in ("train", self.test_folder))
        return (train.in_memory(), test.in_memory()) if self.in_memory else (train, test)

    def _part(self, folder: Path, classes: list[str]) -> EncodedSet:
        strange = sorted(set(_classes(folder)) - set(classes))
        if strange:
            raise DataError(f"{folder} has classes that the training set lacks, such as '{strange[0]}'")
        paths: list[str] = []
        labels: list[int] = []
        for label, name in enumerate(classes):
            files = sorted(
                os.path.join(where, file)
                for where, _, names in os.walk(folder / name, followlinks=True)
                for file in names
                if file.lower().endswith(SUFFIXES)
            )
            if not files:
                raise DataError(f"{folder / name} contains no images ({', '.join(SUFFIXES)})")
            paths += files
            labels += [label] * len(files)
        c, h, w = self.input_shape
        return EncodedSet(ImageFiles(paths), torch.tensor(labels), (c, h, w), self.resize)


def _classes(folder: Path) -> list[str]:
    if not folder.is_dir():
        raise missing(
            folder, "a part of the data set", "lay it out as train/<class>/<image> and the same for the test set"
        )
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
