import pytest
import torch
from torch.nn import functional as F

from kdx.models.cifar.plane import Plane
from kdx.models.small import MLP, DropoutCNN, SmallCNN


def mlp(hidden=(30, 30), dropout=0.0, activation="relu", shape=(1, 8, 8)) -> MLP:
    return MLP(hidden=hidden, dropout=dropout, activation=activation, num_classes=10, input_shape=shape)


def cnn(shape=(1, 8, 8), dropout=0.0) -> SmallCNN:
    return SmallCNN(widths=(16, 32), hidden=64, dropout=dropout, num_classes=10, input_shape=shape)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 28, 28), (64,)])
def test_mlp_by_hand(shape):
    net = mlp(shape=shape).eval()
    x = torch.randn(5, *shape)
    out = net(x)
    h1 = torch.relu(x.flatten(1) @ net.layers[0].weight.T + net.layers[0].bias)
    h2 = torch.relu(h1 @ net.layers[1].weight.T + net.layers[1].bias)
    assert torch.allclose(out.features["stage1"], h1, atol=1e-6)
    assert torch.allclose(out.features["pooled"], h2, atol=1e-6)
    assert torch.allclose(out.logits, h2 @ net.head.weight.T + net.head.bias, atol=1e-6)
    assert set(out.features) == {"stage1", "stage1.preact", "stage2", "stage2.preact", "pooled"}


def test_mlp_parameters_of_hintons_large_net():
    big = mlp((1200, 1200), shape=(1, 28, 28))
    assert sum(p.numel() for p in big.parameters()) == 785 * 1200 + 1201 * 1200 + 1201 * 10


def test_smooth_activations_have_a_second_derivative():
    for activation, smooth in (("relu", False), ("softplus", True), ("tanh", True)):
        x = torch.randn(3, 1, 8, 8, requires_grad=True)
        (g,) = torch.autograd.grad(mlp(activation=activation)(x).logits.square().sum(1).sqrt().sum(), x)
        assert g.abs().sum() > 0
        z = mlp(activation=activation)(x).logits[:, 0].sum()
        (g,) = torch.autograd.grad(z, x, create_graph=True)
        second = torch.autograd.grad(g.square().sum(), x, allow_unused=True)[0] if g.requires_grad else None
        assert (second is not None and bool(second.abs().sum() > 0)) == smooth


@pytest.mark.parametrize("make", [lambda: mlp(dropout=0.5), lambda: cnn(dropout=0.5)])
def test_dropout_acts_in_training_only(make):
    net, x = make(), torch.randn(4, 1, 8, 8)
    net.eval()
    assert torch.equal(net(x).logits, net(x).logits)
    net.train()
    assert not torch.equal(net(x).logits, net(x).logits)


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 17, 9)])
def test_cnn_features(shape):
    net = cnn(shape)
    out = net(torch.randn(3, *shape))
    assert out.logits.shape == (3, 10)
    assert out.features["stage1"].shape == (3, 16, *shape[1:])
    assert out.features["stage2"].shape == (3, 32, shape[1] // 2, shape[2] // 2)
    assert torch.equal(out.features["stage2.preact"].relu(), out.features["stage2"])
    assert torch.equal(net.head(out.features["pooled"]), out.logits)
    out.logits.sum().backward()
    assert all(p.grad is not None for p in net.parameters())


def test_refusals():
    with pytest.raises(ValueError, match="hidden layer"):
        mlp(())
    with pytest.raises(ValueError, match="softplus"):
        mlp(activation="gelu")
    with pytest.raises(ValueError, match="images"):
        cnn((64,))
    with pytest.raises(ValueError, match="at least 4 pixels"):
        cnn((1, 3, 3))


def plane(stages=((4, 4), (8,)), last_pool=True, hidden=None, shape=(3, 32, 32)) -> Plane:
    return Plane(stages=stages, last_pool=last_pool, hidden=hidden, num_classes=10, input_shape=shape)


@pytest.mark.parametrize(("last_pool", "hidden"), [(True, None), (False, None), (True, 7)])
def test_plane_parameters_and_features(last_pool, hidden):
    net = plane(last_pool=last_pool, hidden=hidden)
    convs = sum(9 * i * o + 3 * o for i, o in ((3, 4), (4, 4), (4, 8)))
    flat = 8 * 64 if last_pool else 8 * 256
    linear = (flat + 1) * 10 if hidden is None else (flat + 1) * hidden + (hidden + 1) * 10
    assert sum(p.numel() for p in net.parameters()) == convs + linear
    f = net(torch.randn(2, 3, 32, 32)).features
    assert f["stage1"].shape == (2, 4, 32, 32) and f["stage2"].shape == (2, 8, 16, 16)
    assert f["pooled"].shape == (2, hidden or flat)
    assert all(torch.equal(f[f"stage{i}.preact"].relu(), f[f"stage{i}"]) for i in (1, 2))
    assert (f["stage2.preact"] < 0).any()


def test_plane_refusals():
    with pytest.raises(ValueError, match="at least 4 pixels"):
        plane(shape=(3, 3, 3))
    with pytest.raises(ValueError, match="one stage"):
        plane(stages=())
    with pytest.raises(ValueError, match="images"):
        plane(shape=(64,))


def test_the_dropout_cnn_is_that_of_pytorchs_example():
    net = DropoutCNN(widths=(32, 64), hidden=128, dropouts=(0.25, 0.5), num_classes=10, input_shape=(1, 28, 28)).eval()
    assert sum(p.numel() for p in net.parameters()) == 1_199_882  # as the example prints
    x = torch.randn(3, 1, 28, 28)
    first, second = net.convs
    maps = F.conv2d(F.conv2d(x, first.weight, first.bias).relu(), second.weight, second.bias).relu()
    hidden = (F.max_pool2d(maps, 2).flatten(1) @ net.hidden.weight.T + net.hidden.bias).relu()
    out = net(x)
    assert torch.allclose(out.features["stage2"], maps, atol=1e-6)
    assert torch.allclose(out.features["pooled"], hidden, atol=1e-5)
    assert torch.allclose(out.logits, hidden @ net.fc.weight.T + net.fc.bias, atol=1e-5)
    net.train()
    assert not torch.equal(net(x).logits, net(x).logits)
    with pytest.raises(ValueError, match="at least 6 x 6 pixels"):
        DropoutCNN(widths=(2, 2), hidden=3, dropouts=(0.0, 0.0), num_classes=2, input_shape=(1, 5, 8))
