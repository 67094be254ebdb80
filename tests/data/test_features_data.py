"""Frozen features in a file: what is read, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from kdx.config.compose import compose
from kdx.data.sets import DataError
from kdx.runs.build import make


def stored(folder: Path, **changed: Any) -> Path:
    tensors = {
        "train": torch.randn(12, 4),
        "train_labels": torch.arange(12) % 3,
        "test": torch.randn(6, 4),
        "test_labels": torch.arange(6) % 3,
    }
    path = folder / "some.safetensors"
    save_file({k: v for k, v in (tensors | changed).items() if v is not None}, path)
    return path


def splits(path: Path) -> Any:
    facts = [f"dataset.file={path}", "dataset.num_classes=3", "dataset.input_shape=[1,1,4]", "dataset.train_subset=6"]
    return make(compose(["dataset=features", *facts]).config["dataset"]).splits()


def test_vectors_and_labels_are_those_of_the_file(tmp_path: Path):
    path = stored(tmp_path, train=(vectors := torch.randn(12, 4)))
    found = splits(path)
    images, rows = found.train.rows(torch.arange(12))
    assert torch.equal(torch.from_numpy(images[rows]).reshape(12, 4), vectors)
    assert torch.equal(found.train.labels, torch.arange(12) % 3) and len(found.test) == 6
    assert found.train.shape == (1, 1, 4)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"test_labels": None}, "lacks 'test_labels'"),
        ({"train": torch.randn(12, 4).double()}, "'train' must be float32"),
        ({"train_labels": torch.arange(11) % 3}, "'train' must be float32"),
        ({"train": torch.randn(12, 5)}, "input"),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, changed: dict[str, Any], message: str):
    with pytest.raises(DataError, match=message) as caught:
        splits(stored(tmp_path, **changed))
    assert "\n" not in str(caught.value)


def test_a_missing_file_says_how_to_write_it(tmp_path: Path):
    with pytest.raises(DataError, match=r"features not found: .* scripts/features.py"):
        splits(tmp_path / "none.safetensors")
    (tmp_path / "text.safetensors").write_text("no tensors")
    with pytest.raises(DataError, match="is no safetensors file"):
        splits(tmp_path / "text.safetensors")
