"""The handwritten digits shipped with scikit-learn: 1797 images of 8x8 pixels with values 0..16."""

import gzip
import hashlib
import importlib.util
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from kdx.data.dataset import LabelledImages
from kdx.data.regime import class_ranks
from kdx.data.sets import DataError, TensorSet

SHA256 = "09f66e6debdee2cd2b5ae59e0d6abbb73fc2b0e0185d2e1957e9ebb51e23aa22"
TRAIN_SIZE = 1000
SPLIT_SEED = 1797


@dataclass(frozen=True, kw_only=True)
class Digits(LabelledImages):
    """The test set of UCI's optical digits, split into 1000 and 797 examples by a fixed seed.

    Real data without a download: for first steps, tests and studies that take seconds.

    References:
        E. Alpaydin and C. Kaynak. Optical Recognition of Handwritten Digits. UCI Machine Learning
        Repository, 1998. https://doi.org/10.24432/C50P49
    """

    def load(self) -> tuple[TensorSet, TensorSet]:
        table = _table()
        images = torch.from_numpy(table[:, :-1].reshape(-1, 8, 8, 1).copy())
        labels = torch.from_numpy(table[:, -1].astype(np.int64))
        # ordered by rank within the class, so that both parts have the same class proportions
        place = class_ranks(labels, SPLIT_SEED, "digits").double() / labels.bincount()[labels]
        order = (place + labels * 1e-6).argsort(stable=True)
        train, test = order[:TRAIN_SIZE].sort().values, order[TRAIN_SIZE:].sort().values
        return TensorSet(images[train], labels[train], 16), TensorSet(images[test], labels[test], 16)


def _table() -> np.ndarray:
    # read directly: importing sklearn.datasets takes seconds
    package = importlib.util.find_spec("sklearn")
    if package is None or not package.submodule_search_locations:
        raise DataError("dataset=digits needs scikit-learn, which is not installed: pip install scikit-learn")
    path = Path(package.submodule_search_locations[0]) / "datasets" / "data" / "digits.csv.gz"
    if not path.is_file():
        raise DataError(f"scikit-learn's digits are missing at {path}; install scikit-learn 1.x")
    packed = path.read_bytes()
    if hashlib.sha256(packed).hexdigest() != SHA256:
        raise DataError(f"{path} differs from the expected file (sha256); reinstall scikit-learn")
    text = gzip.decompress(packed).decode("ascii")
    return np.loadtxt(io.StringIO(text), delimiter=",", dtype=np.uint8)
