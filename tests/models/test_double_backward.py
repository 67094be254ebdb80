"""Second derivatives under `DoubleBackward` equal torch's own."""

from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdx.models.double_backward import DoubleBackward, inputs_only

LAYERS = {
    "plain": lambda: nn.Conv2d(4, 6, 3, padding=1),
    "strided": lambda: nn.Conv2d(4, 6, 3, stride=2, padding=1, bias=False),
    "grouped": lambda: nn.Conv2d(4, 6, 3, groups=2, dilation=2),
    "depthwise": lambda: nn.Conv2d(4, 4, (3, 1), groups=4, padding=(1, 0), bias=False),
    "norm": lambda: nn.BatchNorm2d(4),
    "norm in evaluation": lambda: nn.BatchNorm2d(4).eval(),
}


def channels_last(*shape: int) -> Tensor:
    return torch.randn(shape).double().to(memory_format=torch.channels_last)


def name_of(out: Tensor) -> str:
    return type(out.grad_fn).__name__


def network() -> nn.Sequential:
    torch.manual_seed(0)
    made = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.Softplus(),
        nn.Conv2d(4, 6, 3, stride=2, padding=1, bias=False, groups=2),
        nn.BatchNorm2d(6),
        nn.Tanh(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 5),
    )
    for layer in made:
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 2.0)
            nn.init.normal_(layer.bias)
            assert layer.running_mean is not None
            layer.running_mean.normal_()
    return made.double()


@pytest.mark.parametrize("name", LAYERS)
def test_a_layers_second_derivatives_are_its_differences(name: str):
    torch.manual_seed(0)
    layer, x = LAYERS[name]().double(), (3 + channels_last(3, 4, 5, 6)).requires_grad_()
    parameters = list(layer.parameters())

    def run(x: Tensor, *_: Tensor) -> Tensor:
        with DoubleBackward():
            return layer(x)

    assert name_of(run(x)).startswith("_")
    assert torch.autograd.gradcheck(run, (x, *parameters))
    assert torch.autograd.gradgradcheck(run, (x, *parameters))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("all_gradients", [True, False])
def test_a_networks_second_derivatives_are_torchs(training: bool, all_gradients: bool):
    x = channels_last(6, 3, 8, 8)
    found = []
    for mode in (nullcontext(), DoubleBackward()):
        net, inputs = network().train(training), x.detach().requires_grad_()
        with mode:
            out = net(inputs)
        wanted = [inputs, *(net.parameters() if all_gradients else [])]
        # torch computes only the requested gradients; layers under DoubleBackward need inputs_only for that
        with inputs_only() if isinstance(mode, DoubleBackward) and not all_gradients else nullcontext():
            first = torch.autograd.grad(out.logsumexp(1).sum(), wanted, create_graph=True)
        loss = out.square().sum() + sum(g.square().sum() for g in first)
        found.append([out, *first, *torch.autograd.grad(loss, [inputs, *net.parameters()]), *net.buffers()])
    for theirs, mine in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_within_inputs_only_weights_get_nothing_and_afterwards_they_do():
    net, inputs = network(), channels_last(2, 3, 8, 8).requires_grad_()
    weight = net[0].weight
    assert isinstance(weight, Tensor)
    with DoubleBackward():
        out = net(inputs).sum()
    with inputs_only():
        unused = torch.autograd.grad(out, [inputs, weight], retain_graph=True, allow_unused=True)
    assert unused[0] is not None and unused[1] is None
    assert torch.autograd.grad(out, weight)[0] is not None


def test_what_it_does_not_make_is_torchs():
    x = channels_last(2, 4, 6, 6)
    with DoubleBackward():
        assert name_of(nn.Conv2d(4, 4, 3, padding="same").double()(x)) == "ConvolutionBackward0"
        assert name_of(nn.Conv2d(4, 4, 3).double()(x.contiguous())) == "ConvolutionBackward0"
        assert name_of(nn.BatchNorm2d(4, affine=False).double()(x.requires_grad_())) == "NativeBatchNormBackward0"
        with torch.no_grad():
            assert F.conv2d(x, torch.ones(4, 4, 1, 1).double().requires_grad_()).grad_fn is None


def test_under_autocast_a_step_of_half_precision_is_near_the_whole_ones():
    inputs, found = channels_last(8, 3, 8, 8).float(), []
    for half in (False, True):
        net, x = network().float(), inputs.detach().requires_grad_()
        with DoubleBackward(), torch.autocast("cpu", torch.bfloat16, enabled=half):
            out = net(x).float()
        assert out.dtype == torch.float32
        with inputs_only():
            (first,) = torch.autograd.grad(out.logsumexp(1).sum(), x, create_graph=True)
        (out.square().sum() + 10 * first.square().sum()).backward()
        found.append(torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None]))
    assert torch.cosine_similarity(*found, dim=0) > 0.99
