"""Segmenters: shapes, gradients, and heads that read what they should."""

import pytest
import torch
from omegaconf import OmegaConf
from torch.nn import functional as F

from kdx.config.layout import config_dir
from kdx.models.cifar.resnet import ResNet
from kdx.models.dense.segmenter import Segmenter, without_classifier
from kdx.models.small import MLP
from kdx.runs.build import make


def net_of(name: str) -> Segmenter:
    facts = {"num_classes": 5, "input_shape": [3, 16, 24]}
    root = OmegaConf.create({"dataset": facts, "net": OmegaConf.load(config_dir() / "model" / f"{name}.yaml")})
    torch.manual_seed(0)
    return make(OmegaConf.to_container(root.net, resolve=True))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("name", ["fcn_resnet8", "lraspp_resnet14"])
def test_each_pixel_has_logits_and_each_parameter_a_gradient(name: str):
    net = net_of(name)
    out = net(torch.randn(2, 3, 16, 24))
    assert out.logits.shape == (2, 5, 16, 24) and {"stage1", "stage3", "scores"} <= out.features.keys()
    scores = out.features["scores"]
    assert scores.shape[:2] == (2, 5) and scores.shape[2] < 16
    torch.testing.assert_close(out.logits, F.interpolate(scores, size=(16, 24), mode="bilinear"))
    out.logits.square().sum().backward()
    assert not [n for n, p in net.named_parameters() if p.grad is None or not p.grad.isfinite().all()]


def test_the_low_map_reaches_the_logits_of_lraspp_alone():
    for name, reads in (("fcn_resnet8", False), ("lraspp_resnet14", True)):
        net = net_of(name).eval()
        features = net.backbone(torch.randn(1, 3, 16, 24)).features
        low = features["stage2"].detach().requires_grad_()
        maps = features["stage3"] if name.startswith("fcn") else {"low": low, "high": features["stage3"]}
        net.classifier(maps).sum().backward()
        assert (low.grad is not None) == reads


def test_the_classifier_is_dropped_and_the_maps_stay():
    net = ResNet(8, [4, 4, 8, 8], 10, 3).eval()
    x = torch.randn(1, 3, 16, 16)
    before = net(x).features["stage3"]
    after = without_classifier(net)(x)
    assert torch.equal(before, after.features["stage3"]) and not any("fc" in n for n, _ in net.named_parameters())


def test_a_backbone_without_maps_is_refused():
    with pytest.raises(ValueError, match=r"a segmenter reads maps \(C, H, W\), and .* shape \(6,\)"):
        Segmenter(MLP([6], 0.0, "relu", 2, [3, 8, 8]), "fcn", "stage1", "stage1", 8, 3, [3, 8, 8])
