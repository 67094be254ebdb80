import ast
from pathlib import Path

import hydra
import pytest
import torch
import torchvision
from omegaconf import OmegaConf
from torch import nn

from kdx.models.build import timm_model, torchvision_model
from kdx.models.stages import find_stages, name_stages

ROOT = Path(__file__).parents[2] / "configs" / "model"


def tv(name, classes=7, channels=3, taps=None, weights=None, **options):
    return torchvision_model(
        name=name, weights=weights, num_classes=classes, in_channels=channels, taps=taps, options=options
    )


def tm(name, classes=7, channels=3, taps=None, drop=0.0, path=0.0, **options):
    return timm_model(
        name=name,
        pretrained=False,
        num_classes=classes,
        in_channels=channels,
        drop_rate=drop,
        drop_path_rate=path,
        taps=taps,
        options=options,
    )


def test_torchvision_resnet_by_hand():
    model = tv("resnet18").eval()
    net, x = model.net, torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        out = model(x)
        y = net.relu(net.bn1(net.conv1(x)))
        expected = {"stage0": y}
        y = net.maxpool(y)
        for i, layer in enumerate((net.layer1, net.layer2, net.layer3, net.layer4), 1):
            expected[f"stage{i}"] = y = layer(y)
        expected["pooled"] = y.mean((2, 3))
    assert out.features.keys() == expected.keys()
    for role, f in expected.items():
        assert torch.allclose(out.features[role], f, atol=1e-6), role
    assert torch.allclose(net.fc(expected["pooled"]), out.logits, atol=1e-5)
    assert model.head is net.fc


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "squeezenet1_1", "shufflenet_v2_x0_5"])
def test_torchvision_learns_everywhere(name):
    model = tv(name, channels=1).train()
    out = model(torch.randn(2, 1, 64, 64))
    assert out.logits.shape == (2, 7) and out.features["pooled"].dim() == 2
    out.logits.square().sum().backward()
    assert all(p.grad is not None for p in model.parameters())


# all of these have stages of side 112, 56, 28, 14, 7 at 224 pixels
@pytest.mark.parametrize(
    ("name", "stages"),
    [
        ("resnet50", ["relu", "layer1", "layer2", "layer3", "layer4"]),
        ("convnext_tiny", [None, "features.1", "features.3", "features.5", "features.7"]),
        ("swin_t", [None, "features.1", "features.3", "features.5", "features.7"]),
        ("regnet_y_400mf", ["stem", *(f"trunk_output.block{i}" for i in (1, 2, 3, 4))]),
        ("mobilenet_v2", [f"features.{i}" for i in (1, 3, 6, 13, 18)]),
        ("densenet121", ["features.relu0", *(f"features.denseblock{i}" for i in (1, 2, 3, 4))]),
    ],
)
def test_stages_of_known_families(name, stages):
    with torch.device("cpu" if name.startswith("regnet") else "meta"):  # regnet needs real tensors for its widths
        net = torchvision.models.get_model(name, weights=None)
    head = [m for m in net.modules() if isinstance(m, nn.Linear)][-1]
    assert find_stages(net, head) == {f"stage{i}": s for i, s in enumerate(stages) if s}


def test_four_equal_parts_are_the_stages_of_a_transformer():
    with torch.device("meta"):
        net = torchvision.models.vit_b_32(weights=None)
    expected = {f"stage{i + 1}": f"encoder.layers.encoder_layer_{3 * i + 2}" for i in range(4)}
    assert find_stages(net, net.heads.head) == expected


def test_stage_names_start_by_resolution():
    assert list(name_stages(["a", "b"], 2)) == ["stage0", "stage1"]
    assert list(name_stages(["a", "b"], 4)) == ["stage1", "stage2"]
    assert list(name_stages(["a"], None)) == ["stage1"]


def test_torchvision_names_and_options_are_checked():
    with pytest.raises(ValueError, match="no model 'resnet19'; the closest names: .*resnet18"):
        tv("resnet19")
    with pytest.raises(ValueError, match="no weights 'IMAGENET'.*IMAGENET1K_V1"):
        tv("resnet18", weights="IMAGENET")
    with pytest.raises(ValueError, match="does not accept"):
        tv("resnet18", image_size=32)
    with pytest.raises(ValueError, match="no module 'layer5'; similar paths: layer"):
        tv("resnet18", taps={"last": "layer5"})


def test_loaded_weights_meet_another_number_of_classes_and_channels(monkeypatch):
    real, made = torchvision.models.get_model, []

    def offline(name, weights, **options):  # stands in for the published weights
        made.append(real(name, weights=None, **options))
        return made[-1]

    monkeypatch.setattr(torchvision.models, "get_model", offline)
    rgb = tv("resnet18", weights="DEFAULT", classes=1000)
    monkeypatch.setattr(torchvision.models, "get_model", lambda name, weights: made[-1])
    grey = torch.randn(2, 1, 32, 32)
    kept = rgb.net.fc
    first = rgb.net.conv1.weight.clone()
    expected = torch.nn.functional.conv2d(grey.repeat(1, 3, 1, 1), first, stride=2, padding=3)
    one = tv("resnet18", weights="DEFAULT", classes=7, channels=1)
    assert torch.allclose(one.net.conv1(grey), expected, atol=1e-5)
    assert one.net.fc is not kept and one.net.fc.out_features == 7
    assert one(grey).logits.shape == (2, 7)


def test_six_channels_of_loaded_weights_keep_their_scale():
    from kdx.models.build import _adapt_input

    net = nn.Sequential(nn.Conv2d(3, 4, 1))
    x = torch.randn(2, 3, 2, 2)
    expected = net(x)
    _adapt_input(net, "x", 6, keep_sum=True)
    assert torch.allclose(net(x.repeat(1, 2, 1, 1)), expected, atol=1e-6)
    with pytest.raises(ValueError, match="cannot be adapted"):
        _adapt_input(net, "x", 1, keep_sum=True)


def test_timm_resnet_by_hand():
    model = tm("test_resnet", channels=1).eval()
    net, x = model.net, torch.randn(2, 1, 64, 64)
    with torch.no_grad():
        out = model(x)
        y = net.forward_features(x)
    assert [r for r in out.features if r != "pooled"] == [f"stage{i}" for i in range(5)]
    assert torch.equal(out.features["stage4"], y)
    assert torch.allclose(out.features["pooled"], y.mean((2, 3)), atol=1e-6)
    assert torch.allclose(net(x), out.logits) and out.logits.shape == (2, 7)


def test_timm_transformer_gives_maps_without_the_class_token():
    model = tm("test_vit", img_size=32)
    out = model(torch.randn(2, 3, 32, 32))
    assert [r for r in out.features] == ["stage1", "stage2", "stage3", "stage4", "pooled", "last"]
    assert out.features["stage1"].shape[2:] == (2, 2) and out.features["pooled"].dim() == 2
    out.logits.square().sum().backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("name", ["test_convnext", "test_efficientnet", "test_byobnet", "test_nfnet", "test_mambaout"])
def test_timm_families(name):
    out = tm(name, path=0.1).eval()(torch.randn(2, 3, 96, 96))
    assert out.logits.shape == (2, 7) and out.features["pooled"].dim() == 2
    sides = [f.shape[2] for r, f in out.features.items() if r != "pooled" and f.shape[2] == f.shape[3]]
    assert sides == sorted(sides, reverse=True)


def test_timm_own_taps_replace_the_automatic_ones():
    model = tm("test_resnet", taps={"early": "layer1.0", "pooled": "global_pool"})
    out = model(torch.randn(2, 3, 32, 32))
    assert list(out.features) == ["early", "pooled"]


def test_timm_names_and_options_are_checked():
    with pytest.raises(ValueError, match="no model 'resnet19'; the closest names: .*resnet18"):
        tm("resnet19")
    with pytest.raises(ValueError, match="no model 'resnet18.a9'; the closest names: .*resnet18.a1_in1k"):
        tm("resnet18.a9")
    with pytest.raises(ValueError, match="does not accept"):
        tm("test_resnet", no_such_option=3)
    with pytest.raises(ValueError, match="no module 'layer9'; similar paths: layer"):
        tm("test_resnet", taps={"last": "layer9"})


@pytest.mark.parametrize(("stem", "name"), [("timm", "test_resnet"), ("torchvision", "squeezenet1_1")])
def test_configs(stem, name):
    facts = {"num_classes": 5, "input_shape": [1, 64, 64]}
    config = OmegaConf.create({"dataset": facts, "model": OmegaConf.load(ROOT / f"{stem}.yaml")})
    assert OmegaConf.is_missing(config.model, "name")
    config.model.name = name
    out = hydra.utils.instantiate(config.model).eval()(torch.randn(2, 1, 64, 64))
    assert out.logits.shape == (2, 5)


def test_heavy_libraries_are_imported_only_where_needed():
    for path in (ROOT.parents[1] / "kdx" / "models").rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
                assert not {n.partition(".")[0] for n in names} & {"timm", "torchvision", "safetensors"}, path
