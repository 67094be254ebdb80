"""Networks between two others, and group norms in place of batch norms."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from kdx.models.between import between, combined
from kdx.models.cifar.resnet import ResNet
from kdx.models.norms import group_normed, has_batch_norms


def test_a_state_between_two_is_linear_and_ends_at_both():
    one, other = (nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)) for _ in range(2))
    other[1].num_batches_tracked += 5
    a, b = one.state_dict(), other.state_dict()
    for share in (0.0, 0.3, 1.0):
        for name, value in between(a, b, share).items():
            wanted = b[name] if name.endswith("tracked") else a[name] + share * (b[name] - a[name])
            assert torch.allclose(value, wanted) and value.dtype == a[name].dtype
    third = {name: value * 0 + 1 for name, value in a.items()}
    found = combined({"a": a, "b": b, "c": third}, {"a": 2.0, "b": -1.5, "c": 0.5}, like="a")
    assert torch.allclose(found["0.weight"], 2 * a["0.weight"] - 1.5 * b["0.weight"] + 0.5)


def test_group_norms_normalise_each_example_alone():
    net = group_normed(ResNet(depth=8, widths=[4, 4, 8, 8], num_classes=3, in_channels=3), groups=2)
    assert not has_batch_norms(net) and net.preact_norms() == {}
    images = torch.randn(4, 3, 8, 8)
    net.train()
    alone = torch.cat([net(image[None]).logits for image in images])
    assert torch.allclose(net(images).logits, alone, atol=1e-5)
    x = net.conv1(images)
    parts = x.view(4, 2, -1)
    wanted = (parts - parts.mean(2, keepdim=True)) / (parts.var(2, unbiased=False, keepdim=True) + 1e-5).sqrt()
    assert torch.allclose(net(images).features["stage0"], F.relu(wanted.view_as(x)), atol=1e-5)


def test_groups_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="3 groups do not divide the 4 channels of 'bn1'"):
        group_normed(ResNet(depth=8, widths=[4, 4, 8, 8], num_classes=3, in_channels=3), groups=3)
    with pytest.raises(ValueError, match="Linear has no batch norm to replace"):
        group_normed(nn.Linear(2, 2), groups=1)
