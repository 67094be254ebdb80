import pytest
import torch
from torch import nn

from kdx.core.outputs import Outputs
from kdx.core.spec import Images, Vectors
from kdx.models.cifar.resnet import ResNet
from kdx.models.probe import probe


def image(channels: int) -> Images:
    return Images((channels, 16, 16), (0.0,) * channels, (1.0,) * channels)


class Noisy(nn.Module):
    """A network with side effects: random draws in evaluation mode and a call counter in a buffer."""

    def __init__(self):
        super().__init__()
        self.inner = ResNet(depth=8, widths=(4, 4, 8, 8), num_classes=5, in_channels=3)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        return self.inner(x + torch.randn_like(x))


def test_shapes():
    shapes = probe(Noisy(), image(3))
    assert shapes.logits == (5,)
    assert shapes.feature("stage2") == (8, 8, 8)
    assert shapes.feature("pooled") == (8,)


def test_it_leaves_no_trace():
    net = Noisy().train()
    net.inner.layer2.eval()  # mixed modes must be restored
    flags = [m.training for m in net.modules()]
    state = {k: v.clone() for k, v in net.state_dict().items()}
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    probe(net, image(3))
    assert torch.equal(torch.rand(4), expected)
    assert [m.training for m in net.modules()] == flags
    assert all(torch.equal(state[k], v) for k, v in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())


def test_flags_come_back_after_an_error():
    net = Noisy().train()
    with pytest.raises(RuntimeError):
        probe(net, image(1))
    assert all(m.training for m in net.modules()) and net.calls == 0


def test_a_net_without_outputs_is_refused():
    with pytest.raises(TypeError, match="Outputs"):
        probe(nn.Linear(4, 2), Vectors(4))


def test_members_are_no_hindrance():
    class Two(nn.Module):
        def forward(self, x):
            return Outputs(x, {}, (Outputs(x), Outputs(x)))

    assert probe(Two(), Vectors(4)).logits == (4,)
