"""One folder of images per class: the layout of torchvision's ImageFolder and of ImageNet."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from kdx.core.ranges import PositiveInt
from kdx.core.spec import Images
from kdx.data.dataset import LabelledImages, missing
from kdx.data.encoded import EncodedSet, ImageFiles
from kdx.data.sets import DataError, ImageSet
from kdx.data.sources.walk import SUFFIXES, Skipped, count, entries, images_in, is_hidden

TRAIN = "train"
LAYOUT = "lay it out as train/<class>/<image> and the same for the test set"


@dataclass(frozen=True, kw_only=True)
class ImageFolder(LabelledImages):
    """`root/folder/{train,test_folder}/<class>/**/<image>`; classes are numbered by name, as in torchvision.

    Unlike torchvision, it leaves out what is hidden (`.ipynb_checkpoints`, `._photo.jpg`, `@eaDir`), visits a folder
    that links lead to once, and counts what it left out on standard error.

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

    @property
    def inputs(self) -> Images:
        if os.path.normpath(self.test_folder) == TRAIN:
            raise self._untested()
        return super().inputs

    def files(self) -> Mapping[str, Sequence[str]]:
        base = Path(self.root).expanduser() / self.folder
        try:
            parts = images_in([str(base / TRAIN), str(base / os.path.normpath(self.test_folder))], Skipped())
        except DataError:
            return {}  # loading reports it
        return {str(base): [path for paths in parts for path in paths]}

    def class_names(self) -> list[str]:
        """Names of the class folders. Raises DataError if the training set is missing."""
        return _classes(Path(self.root).expanduser() / self.folder / TRAIN, Skipped())

    def load(self) -> tuple[ImageSet, ImageSet]:
        base = Path(self.root).expanduser() / self.folder
        if not base.is_dir():
            raise missing(base, self.name, LAYOUT)
        if _is_one_folder(base / TRAIN, base / self.test_folder):
            raise self._untested()
        skipped = {part: Skipped() for part in (TRAIN, self.test_folder)}
        classes = _classes(base / TRAIN, skipped[TRAIN])
        if len(classes) != self.num_classes:
            raise DataError(
                f"{base / TRAIN} has {len(classes)} classes, but num_classes is {self.num_classes}"
                + _without_images(base / TRAIN, classes)
            )
        if strange := sorted(set(_classes(base / self.test_folder, skipped[self.test_folder])) - set(classes)):
            raise DataError(
                f"{base / self.test_folder} has classes that the training set lacks, such as '{strange[0]}'"
            )
        train, test = (self._part(base / part, classes, found) for part, found in skipped.items())
        return (train.in_memory(), test.in_memory()) if self.in_memory else (train, test)

    def _untested(self) -> DataError:
        return DataError(
            f"dataset.test_folder={self.test_folder} is the folder of the training set, so test metrics would be "
            "training metrics; name the folder of the test set"
        )

    def _part(self, folder: Path, classes: list[str], skipped: Skipped) -> EncodedSet:
        found = images_in([str(folder / name) for name in classes], skipped)
        if empty := [name for name, files in zip(classes, found, strict=True) if not files]:
            less = f"; skipped there or elsewhere: {skipped}" if skipped else ""
            raise DataError(f"{folder / empty[0]} contains no images ({', '.join(SUFFIXES)}){less}")
        skipped.report(str(folder))
        labels = torch.arange(len(classes)).repeat_interleave(torch.tensor([len(files) for files in found]))
        paths = [path for files in found for path in files]
        c, h, w = self.input_shape
        return EncodedSet(ImageFiles(paths), labels, (c, h, w), self.resize)


def _classes(folder: Path, skipped: Skipped) -> list[str]:
    if not folder.is_dir():
        raise missing(folder, "a part of the data set", LAYOUT)
    found = []
    for entry in entries(str(folder)):
        if is_hidden(entry.name):
            skipped.hidden += count(entry)
        elif entry.is_dir():
            found.append(entry.name)
        else:
            skipped.loose += entry.name.lower().endswith(SUFFIXES)
    return found


def _without_images(folder: Path, classes: list[str]) -> str:
    """The classes that explain a wrong number of classes, for the message; empty if all have images."""
    found = images_in([str(folder / name) for name in classes], Skipped())
    empty = [name for name, files in zip(classes, found, strict=True) if not files]
    return f"; without images: {', '.join(empty[:3])}{', ...' if len(empty) > 3 else ''}" if empty else ""


def _is_one_folder(a: Path, b: Path) -> bool:
    return a.is_dir() and b.is_dir() and a.samefile(b)
