"""Features of timm's and torchvision's networks, compared by value with the libraries' own."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kdx.core.spec import Images
from kdx.models.build import timm_model, torchvision_model
from kdx.models.features.layout import as_vector
from kdx.models.features.quiet import quiet, random_input, randomised
from kdx.models.probe import probe
from kdx.models.tap import Tapped

CPU = torch.device("cpu")
# name, side of the input, whether the constructor takes it
SAMPLE = [
    ("test_resnet", 32, False),
    ("test_vit", 32, True),
    ("test_convnext", 64, False),
    ("test_efficientnet", 32, False),
    ("test_efficientnet_ln", 32, False),
    ("test_byobnet", 32, False),
    ("test_nfnet", 32, False),
    ("test_mambaout", 64, False),
    ("deit_tiny_distilled_patch16_224", 32, True),
    ("swin_tiny_patch4_window7_224", 32, True),
    ("mobilenetv3_small_050", 32, False),
    ("levit_128s", 224, False),
    ("pvt_v2_b0", 32, False),
    ("shvit_s1", 32, False),
]
LARGE = [  # a second or more each
    ("crossvit_tiny_240", 240, False),
    ("densenet121", 32, False),
    ("efficientformer_l1", 224, False),
    ("selecsls42", 32, False),
    ("sequencer2d_s", 32, True),
    ("swiftformer_xs", 224, False),
    ("twins_pcpvt_small", 32, True),
]
NETWORKS = [
    *(pytest.param(*of, id=of[0]) for of in SAMPLE),
    *(pytest.param(*of, id=of[0], marks=pytest.mark.slow) for of in LARGE),
]


def built(name: str, side: int, takes_size: bool) -> Tapped:
    torch.manual_seed(0)
    options = {"img_size": side} if takes_size else {}
    model = timm_model(name, False, 7, 3, 0.0, 0.0, None, options)
    probe(model, Images((3, side, side), (0.0,) * 3, (1.0,) * 3))
    return model


def near(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and float((a - b).abs().max()) <= 1e-5 * float(b.abs().max())


@pytest.mark.parametrize(("name", "side", "takes_size"), NETWORKS)
def test_features_are_those_of_the_library(name: str, side: int, takes_size: bool):
    model = built(name, side, takes_size)
    net: Any = model.net
    with quiet(net, CPU), randomised(net):
        x = random_input(torch.zeros(2, 3, side, side))
        out = model(x)
        assert near(out.logits, net(x))
        maps = net.forward_intermediates(x, intermediates_only=True)
        stages = {role: f for role, f in out.features.items() if role.startswith("stage")}
        assert len(stages) >= 3
        for role, feature in stages.items():
            assert any(near(feature, m) for m in maps), role
        assert near(out.feature("pooled"), as_vector(net.forward_head(net.forward_features(x), pre_logits=True)))
        readers = next(iter(model._plans.values())).readers
        assert {"pooled", "pre_logits"} & readers.keys()
        for role in readers:
            feature = out.feature(role)
            classifier = model.classifier_for(role, feature.shape[1])
            assert classifier is not None
            mean = feature.mean((2, 3)) if feature.dim() == 4 and isinstance(classifier, nn.Linear) else feature
            assert near(classifier(mean), out.logits), role


@pytest.mark.parametrize(
    "name",
    ["test_convnext", "test_mambaout", pytest.param("swin_tiny_patch4_window7_224", marks=pytest.mark.slow)],
)
def test_channels_stay_at_another_input_size(name: str):
    options = {"strict_img_size": False} if name.startswith("swin") else {}
    model = timm_model(name, False, 7, 3, 0.0, 0.0, None, options)
    small, large = (probe(model, Images((3, side, side), (0.0,) * 3, (1.0,) * 3)) for side in (64, 96))
    assert small.features.keys() == large.features.keys()
    for role, shape in small.features.items():
        assert shape[0] == large.features[role][0], role
        if len(shape) == 3:
            assert large.features[role][1] > shape[1], role


@pytest.mark.slow
def test_a_vision_transformer_of_torchvision_has_maps_without_its_class_token():
    torch.manual_seed(0)
    model = torchvision_model("vit_b_32", None, 7, 3, None, {"image_size": 64})
    net: Any = model.net
    with quiet(net, CPU), randomised(net):
        x = random_input(torch.zeros(2, 3, 64, 64))
        out = model(x)
        tokens = []
        handle = net.encoder.layers[2].register_forward_hook(lambda _, args, output: tokens.append(output))
        net(x)
        handle.remove()
        assert near(out.feature("stage1"), tokens[0][:, 1:].mT.reshape(2, 768, 2, 2))
        assert near(net.heads.head(out.feature("pooled")), out.logits)


def test_channels_last_maps_of_torchvision_become_channels_first():
    torch.manual_seed(0)
    model = torchvision_model("swin_t", None, 7, 3, None, {})
    shapes = probe(model, Images((3, 64, 64), (0.0,) * 3, (1.0,) * 3))
    assert [shapes.features[f"stage{i}"] for i in (1, 2, 3, 4)] == [(96, 16, 16), (192, 8, 8), (384, 4, 4), (768, 2, 2)]
    assert shapes.specs["stage1"].kind == "map" and shapes.specs["stage1"].grid == (16, 16)


def test_features_cost_views_alone():
    model = built("test_vit", 32, True)
    out = model.eval()(torch.randn(2, 3, 32, 32))
    assert all(out.feature(role)._base is not None for role in ("stage1", "stage4"))
