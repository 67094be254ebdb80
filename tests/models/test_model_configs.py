"""Every network of configs/model builds from its YAML, returns the right shapes, and has gradients everywhere."""

from pathlib import Path

import hydra
import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from kdx.models.base import Net

ROOT = Path(__file__).parents[2] / "configs" / "model"
# libraries' networks, tested in test_build.py
OPEN = {"timm", "torchvision"}
# tested in test_text_encoder.py and test_masked_encoder.py
TEXT = {"bag_of_words", "lstm", "minilm", "minilm_3", "minilm_3x192", "transformers"}
TEXT |= {"minilm_masked", "minilm_3_masked", "transformers_masked"}
# tested in files of their own
DETECTORS = {
    "faster_rcnn",
    "faster_rcnn_small",
    "faster_rcnn_cells",
    "faster_rcnn_lite0",
    "open_rcnn",
    "open_rcnn_small",
}
DETECTORS |= {"retinanet", "retinanet_small"}
DENSE = {"fcn_resnet8", "lraspp_resnet14"}  # logits of each pixel, tested in test_segmenter.py
FUNCTIONS = {"styblinski_tang"}  # without parameters
NAMES = sorted(p.stem for p in ROOT.glob("*.yaml") if p.stem not in OPEN | FUNCTIONS | TEXT | DENSE | DETECTORS)


def build(name: str, channels: int, side: int, classes: int) -> nn.Module:
    facts = {"num_classes": classes, "input_shape": [channels, side, side]}
    config = OmegaConf.merge(OmegaConf.load(ROOT / f"{name}.yaml"), {})
    return hydra.utils.instantiate(OmegaConf.create({"dataset": facts, "model": config}).model)


@pytest.mark.parametrize("name", NAMES)
def test_it_builds_answers_and_learns(name: str):
    torch.manual_seed(0)
    net = build(name, channels=1, side=32, classes=7)
    assert isinstance(net, Net)
    assert net.head.out_features == 7
    out = net(torch.randn(2, 1, 32, 32))
    assert out.logits.shape == (2, 7)
    assert out.features["pooled"].shape == (2, net.head.in_features)
    stages = [r for r in out.features if r.startswith("stage") and r != "stage0" and "." not in r]
    assert stages == [f"stage{i}" for i in range(1, len(stages) + 1)]
    assert stages or name == "linear"
    assert "final" not in out.features or out.features["final"].shape[1] == net.head.in_features
    assert net.preact_norms().keys() <= out.features.keys()
    out.logits.square().sum().backward()
    silent = [n for n, p in net.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not silent


@pytest.mark.parametrize("name", NAMES)
def test_an_exported_state_loads_into_a_fresh_network(name: str):
    a, b = (build(name, channels=3, side=32, classes=10) for _ in range(2))
    b.load_state_dict(a.state_dict(), strict=True)
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(a.eval()(x).logits, b.eval()(x).logits)
