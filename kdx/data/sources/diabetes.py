"""The diabetes table that comes with scikit-learn: ten measurements of 442 patients and a score of their disease."""

import gzip
import hashlib
import importlib.util
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kdx.core.ranges import Positive, PositiveInt
from kdx.core.seed import generator
from kdx.core.spec import Vectors
from kdx.data.dataset import Dataset
from kdx.data.sets import DataError, VectorSet
from kdx.data.units import standardised_values
from kdx.tasks.values import Values

SHA256 = {
    "diabetes_data_raw.csv.gz": "7fc0ded571454b1982210d3bb43f0aca44eae01a0b8654a3b24022bdb6b38009",
    "diabetes_target.csv.gz": "8e53f65eb811df43c206f3534bb3af0e5fed213bc37ed6ba36310157d6023803",
}
FEATURES = ("age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6")
TRAIN_SIZE = 300
SPLIT_SEED = 442


@dataclass(frozen=True, kw_only=True)
class Diabetes(Dataset):
    """Regression of the progression of diabetes one year after ten measurements, 300 training and 142 test patients.

    The split is drawn once, from a seed that never changes. Features are standardised with mean and standard deviation
    (divided by N) of the 300 training patients, whatever part of them a run learns from. Targets are standardised with
    `target_mean` and `target_std`; metrics are in the unit of the table, a score from 25 to 346.

    Attributes:
        input_shape: Shape of one input, (10,).
        num_outputs: Numbers that a network gives for each patient, 1.
        target_mean: Mean of the training targets, one number.
        target_std: Their standard deviation, one number.

    References:
        Efron, Hastie, Johnstone, Tibshirani, "Least Angle Regression", 2004. https://doi.org/10.1214/009053604000000067
    """

    input_shape: Sequence[PositiveInt]
    num_outputs: PositiveInt
    target_mean: Sequence[float]
    target_std: Sequence[Positive]

    @property
    def task(self) -> Values:
        task = standardised_values(self.num_outputs, self.target_mean, self.target_std)
        if self.num_outputs != 1:
            raise DataError(f"the diabetes table has one target, so num_outputs must be 1, got {self.num_outputs}")
        return task

    @property
    def inputs(self) -> Vectors:
        return Vectors(int(np.prod(self.input_shape)))

    def load(self) -> tuple[VectorSet, VectorSet]:
        features, targets = table()
        train, test = split()
        features = standardised(features, features[train])
        mean, std = (torch.tensor(list(t), dtype=torch.float64) for t in (self.target_mean, self.target_std))
        values = ((targets[:, None] - mean) / std).float()
        first, second = (VectorSet(features[part].float(), {"values": values[part]}) for part in (train, test))
        return first, second


def table() -> tuple[Tensor, Tensor]:
    """The measurements as they were taken, float64 [442, 10], and the progression, float64 [442].

    Raises:
        DataError: scikit-learn is not installed, or has another table.
    """
    # importing sklearn.datasets costs seconds; its table is two small files
    return _read("diabetes_data_raw.csv.gz"), _read("diabetes_target.csv.gz")


def split() -> tuple[Tensor, Tensor]:
    """Positions of the 300 training and the 142 test patients, each ascending, int64."""
    order = torch.randperm(442, generator=generator(SPLIT_SEED, "diabetes"))
    return order[:TRAIN_SIZE].sort().values, order[TRAIN_SIZE:].sort().values


def standardised(features: Tensor, reference: Tensor) -> Tensor:
    """Features [N, D] less the mean of the reference rows [M, D], over their standard deviation (divided by M).

    Example:
        >>> standardised(torch.tensor([[3.0]]), torch.tensor([[0.0], [2.0]]))
        tensor([[2.]])
    """
    return (features - reference.mean(0)) / reference.std(0, correction=0)


def _read(name: str) -> Tensor:
    package = importlib.util.find_spec("sklearn")
    if package is None or not package.submodule_search_locations:
        raise DataError("the diabetes table comes with scikit-learn, which is not installed; pip install scikit-learn")
    path = Path(package.submodule_search_locations[0]) / "datasets" / "data" / name
    if not path.is_file():
        raise DataError(f"this scikit-learn has no diabetes table at {path}; install scikit-learn 1.x")
    packed = path.read_bytes()
    if hashlib.sha256(packed).hexdigest() != SHA256[name]:
        raise DataError(f"{path} is not the diabetes table that is known; reinstall scikit-learn")
    text = gzip.decompress(packed).decode("ascii")
    return torch.from_numpy(np.loadtxt(io.StringIO(text), dtype=np.float64))
