"""CIFAR-10 and CIFAR-100, read from their pickles by a restricted unpickler."""

import hashlib
import io
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from kdx.data.dataset import LabelledImages, missing
from kdx.data.sets import DataError, TensorSet
from kdx.data.sources.walk import listed

# md5 of each file, as in torchvision
CIFAR10_TRAIN = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
}
CIFAR10_TEST = {"test_batch": "40351d587109b95175f43aff81a1287e"}
CIFAR100_TRAIN = {"train": "16019d7e3df5f24257cddd939b257f8d"}
CIFAR100_TEST = {"test": "f0ef6b0ae62326f3e7ffdfab6717acfc"}


@dataclass(frozen=True, kw_only=True)
class Cifar(LabelledImages):
    """50,000 + 10,000 colour images of 32x32 pixels in 10 or 100 classes.

    Attributes:
        name: The data set.
        root: Folder that contains `cifar-10-batches-py/` or `cifar-100-python/`, the layout of torchvision.
        download: Download the archive if the folder is missing.
        verify: Reject files that differ from the published ones.

    References:
        A. Krizhevsky. Learning Multiple Layers of Features from Tiny Images. 2009.
        https://www.cs.toronto.edu/~kriz/cifar.html
    """

    name: Literal["cifar10", "cifar100"]
    root: str
    download: bool
    verify: bool

    @property
    def _folder(self) -> Path:
        return Path(self.root).expanduser() / ("cifar-10-batches-py" if self.name == "cifar10" else "cifar-100-python")

    def class_names(self) -> list[str]:
        """The class names in the data's meta file. Raises DataError if it is missing or damaged."""
        ten = self.name == "cifar10"
        path = self._folder / ("batches.meta" if ten else "meta")
        try:
            entry = _PlainUnpickler(io.BytesIO(path.read_bytes()), encoding="latin1").load()
            return [str(name) for name in entry["label_names" if ten else "fine_label_names"]]
        except OSError:
            raise missing(path, f"{self.name}'s class names", "set dataset.download=true in an empty folder") from None
        except Exception as error:  # a damaged pickle can raise anything
            raise DataError(f"{path} is damaged: {type(error).__name__}: {error}") from error

    def files(self) -> Mapping[str, Sequence[str]]:
        names = (CIFAR10_TRAIN, CIFAR10_TEST) if self.name == "cifar10" else (CIFAR100_TRAIN, CIFAR100_TEST)
        return listed([self._folder / name for part in names for name in part])

    def load(self) -> tuple[TensorSet, TensorSet]:
        ten, folder = self.name == "cifar10", self._folder
        if not folder.is_dir():
            if not self.download:
                raise missing(folder, self.name, "set dataset.download=true to fetch it")
            from torchvision import datasets

            (datasets.CIFAR10 if ten else datasets.CIFAR100)(str(folder.parent), download=True)
        train, test = (CIFAR10_TRAIN, CIFAR10_TEST) if ten else (CIFAR100_TRAIN, CIFAR100_TEST)
        key = "labels" if ten else "fine_labels"
        return self._read(folder, train, key), self._read(folder, test, key)

    def _read(self, folder: Path, files: dict[str, str], key: str) -> TensorSet:
        parts = [self._file(folder / name, md5, key) for name, md5 in files.items()]
        images, labels = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
        return TensorSet(images, labels, 255)

    def _file(self, path: Path, md5: str, key: str) -> tuple[torch.Tensor, torch.Tensor]:
        if not path.is_file():
            raise missing(path, f"{self.name}'s {path.name}", "set dataset.download=true in an empty folder")
        data = path.read_bytes()
        try:
            entry = _PlainUnpickler(io.BytesIO(data), encoding="latin1").load()
            images = np.asarray(entry["data"], np.uint8).reshape(-1, 3, 32, 32)
            labels = np.asarray(entry[key], np.int64)
        except DataError as error:
            raise DataError(f"{path} is not a file of {self.name}: {error}") from None
        except Exception as error:  # a damaged pickle can raise anything
            raise DataError(f"{path} is damaged: {type(error).__name__}: {error}") from error
        if self.verify and hashlib.md5(data).hexdigest() != md5:
            raise DataError(f"{path} differs from the published file (md5); set dataset.verify=false to accept it")
        return torch.from_numpy(images).permute(0, 2, 3, 1).contiguous(), torch.from_numpy(labels)


class _PlainUnpickler(pickle.Unpickler):
    """Loads only arrays and plain values, since a pickle can run any code."""

    modules = ("numpy", "numpy._core.multiarray", "numpy._core.numeric", "_codecs")
    names = ("ndarray", "dtype", "scalar", "encode", "_reconstruct", "_frombuffer")

    def find_class(self, module: str, name: str) -> Any:
        # files written before NumPy 2 use module names without the underscore
        module = module.replace("numpy.core.", "numpy._core.")
        if module in self.modules and name in self.names:
            return super().find_class(module, name)
        raise DataError(f"it refers to {module}.{name}, which is not allowed in plain data")
