"""Vectors that a frozen network made of the images of a data set, stored in one file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from kdx.data.dataset import LabelledImages, missing
from kdx.data.sets import DataError, TensorSet

KEYS = ("train", "train_labels", "test", "test_labels")


@dataclass(frozen=True, kw_only=True)
class Features(LabelledImages):
    """Frozen features [N, D] as images of shape (1, 1, D), for linear models on a pretrained network.

    Attributes:
        file: A safetensors file with float32 `train` [N, D] and `test` [M, D], and int64 `train_labels` [N] and
            `test_labels` [M]; `scripts/features.py` writes it.
    """

    file: str

    @property
    def has_own_units(self) -> bool:
        return True

    def files(self) -> Mapping[str, Sequence[str]]:
        path = Path(self.file).expanduser()
        return {str(path.parent): [path.name]} if path.is_file() else {}

    def load(self) -> tuple[TensorSet, TensorSet]:
        from safetensors.torch import load_file

        path = Path(self.file).expanduser()
        if not path.is_file():
            raise missing(path, "features", "python scripts/features.py DATASET FILE writes them")
        try:
            found = load_file(path)
        except Exception as error:  # safetensors raises a type of its own
            raise DataError(f"{path} is no safetensors file: {error}") from None
        if lacking := [key for key in KEYS if key not in found]:
            raise DataError(f"{path} lacks '{lacking[0]}'; it needs {', '.join(KEYS)}")
        return _set(found, "train", path), _set(found, "test", path)


def _set(found: Mapping[str, Tensor], split: str, path: Path) -> TensorSet:
    vectors, labels = found[split], found[f"{split}_labels"]
    if vectors.dtype != torch.float32 or vectors.ndim != 2 or labels.shape != vectors.shape[:1]:
        raise DataError(f"{path}: '{split}' must be float32 [N, D], and '{split}_labels' [N]")
    return TensorSet(vectors[:, None, :, None], labels.long(), 1)
