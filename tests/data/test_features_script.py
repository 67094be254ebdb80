"""scripts/features.py: features of made-up images against a loop, and the file that `dataset=features` reads."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from kdx.config.compose import compose
from kdx.runs.build import make

PATH = Path(__file__).resolve().parents[2] / "scripts" / "features.py"
IMAGES = ["dataset.input_shape=[3,6,6]", "dataset.num_classes=4", "dataset.train_size=50", "dataset.test_size=30"]
IMAGES += ["dataset.train_subset=10"]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, of the pretrained network


class Doubled(torch.nn.Module):
    """A network whose last map is twice its input."""

    def forward_intermediates(self, images: torch.Tensor, indices: list[int], intermediates_only: bool) -> Any:
        assert indices == [4] and intermediates_only and not self.training
        return [2 * images]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    spec = importlib.util.spec_from_file_location("features_script", PATH)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "timm_backbone", lambda *_: Doubled())
    return module


def test_features_are_means_over_places_of_images_in_the_networks_units(script: Any):
    splits = make(compose(["dataset=synthetic", *IMAGES]).config["dataset"]).splits()
    vectors, labels = script.features(splits.test, splits.spec, 6)
    assert torch.equal(labels, splits.test.labels) and vectors.shape == (30, 3)
    images, rows = splits.test.rows(torch.arange(30))
    for i in (0, 7, 29):
        pixels = torch.from_numpy(images[rows[i]]).double() / 255  # [H, W, C] bytes
        for channel in range(3):
            mean = sum(float(p) for p in pixels[..., channel].flatten()) / 36
            assert float(vectors[i, channel]) == pytest.approx(2 * (mean - MEAN[channel]) / STD[channel], abs=1e-4)


def test_the_file_is_balanced_standardised_by_the_training_images_and_readable(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    file = tmp_path / "some.safetensors"
    # overrides may come before or after the options
    asked = ["synthetic", str(file), *IMAGES[:2], "--train", "22", "--test", "9", "--size", "6", *IMAGES[2:]]
    monkeypatch.setattr(sys, "argv", ["features.py", *asked])
    script.main()
    found = load_file(file)
    assert found["train"].shape == (22, 3) and found["test"].shape == (9, 3)
    assert torch.allclose(found["train"].mean(0), torch.zeros(3), atol=1e-5)
    assert torch.allclose(found["train"].std(0), torch.ones(3), atol=1e-4)
    counts = found["train_labels"].bincount(minlength=4)
    assert int(counts.max() - counts.min()) <= 1
    # test vectors have the scale of the training images, not their own
    assert not torch.allclose(found["test"].std(0), torch.ones(3), atol=1e-3)
    facts = [f"dataset.file={file}", "dataset.num_classes=4", "dataset.input_shape=[1,1,3]", "dataset.train_subset=6"]
    splits = make(compose(["dataset=features", *facts]).config["dataset"]).splits()
    assert len(splits.train) == 22 and torch.equal(splits.test.labels, found["test_labels"])
