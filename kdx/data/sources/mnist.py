"""MNIST, read from its four idx files."""

import gzip
import hashlib
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from kdx.data.dataset import LabelledImages, missing
from kdx.data.sets import DataError, TensorSet
from kdx.data.sources.walk import listed

# of the uncompressed files, so that the compression does not matter
MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}


@dataclass(frozen=True, kw_only=True)
class Mnist(LabelledImages):
    """60,000 + 10,000 handwritten digits of 28x28 pixels.

    Attributes:
        root: Folder that contains `MNIST/raw/`, the layout of torchvision.
        download: Download the files if the folder is missing.
        verify: Reject files that differ from the published ones.

    References:
        Y. LeCun, L. Bottou, Y. Bengio, P. Haffner. Gradient-based learning applied to document
        recognition. Proc. IEEE, 1998. http://yann.lecun.com/exdb/mnist/
    """

    root: str
    download: bool
    verify: bool

    def files(self) -> Mapping[str, Sequence[str]]:
        folder = Path(self.root).expanduser() / "MNIST" / "raw"
        return listed([folder / f"{name}{suffix}" for name in MD5 for suffix in ("", ".gz")])

    def load(self) -> tuple[TensorSet, TensorSet]:
        folder = Path(self.root).expanduser() / "MNIST" / "raw"
        if not folder.is_dir():
            if not self.download:
                raise missing(folder, "MNIST", "set dataset.download=true to fetch it")
            from torchvision.datasets import MNIST

            MNIST(str(folder.parent.parent), download=True)
        return self._part(folder, "train"), self._part(folder, "t10k")

    def _part(self, folder: Path, part: str) -> TensorSet:
        images = self._read(folder, f"{part}-images-idx3-ubyte").unsqueeze(-1)
        return TensorSet(images, self._read(folder, f"{part}-labels-idx1-ubyte").long(), 255)

    def _read(self, folder: Path, name: str) -> torch.Tensor:
        plain, packed = folder / name, folder / f"{name}.gz"
        path = plain if plain.is_file() else packed
        if not path.is_file():
            raise missing(plain, f"MNIST's {name} (or {name}.gz)", "set dataset.download=true in an empty folder")
        try:
            data = path.read_bytes() if path == plain else gzip.decompress(path.read_bytes())
        except (EOFError, OSError, zlib.error) as error:
            raise DataError(f"{path} is damaged: {error}") from error
        array = read_idx(data, path)
        if self.verify and hashlib.md5(data).hexdigest() != MD5[name]:
            raise DataError(f"{path} differs from the published file (md5); set dataset.verify=false to accept it")
        return torch.from_numpy(array)


def read_idx(data: bytes, path: Path) -> np.ndarray:
    """Parse an array of bytes in the idx format: magic number, sizes, values. Raises DataError for other data."""
    axes = data[3] if len(data) >= 4 and data[:3] == b"\x00\x00\x08" else 0
    shape = np.frombuffer(data, ">i4", axes, 4).tolist() if axes and len(data) >= 4 + 4 * axes else []
    if not shape or len(data) - 4 - 4 * axes != np.prod(shape):
        raise DataError(f"{path} is damaged: its {len(data)} bytes are not an idx file with sizes {shape}")
    return np.frombuffer(bytearray(data), np.uint8, offset=4 + 4 * axes).reshape(shape)
