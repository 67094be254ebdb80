"""Ensembles of frozen networks: outputs, features and derivatives."""

import pytest
import torch
from torch import nn

from kdx.core.batch import Batch
from kdx.core.errors import UserError
from kdx.core.outputs import Outputs
from kdx.core.teacher import teacher_outputs
from kdx.losses.base.heads import holder_of, linear_head
from kdx.models.cifar.resnet import ResNet
from kdx.models.small import MLP
from kdx.models.teachers.black_box import BlackBoxTeacher
from kdx.models.teachers.ensemble import ArithmeticMean, Ensemble, GeometricMean, LabelMean
from kdx.models.teachers.frozen import Frozen

SHAPE, CLASSES = (3, 8, 8), 5


def members(count: int = 3, classes: int = CLASSES) -> dict[str, Frozen]:
    torch.manual_seed(0)
    nets = [MLP((16,), 0.0, "relu", classes, SHAPE) for _ in range(count - 1)] + [ResNet(8, (4, 4, 8, 8), classes, 3)]
    return {f"m{i}": Frozen(net, None, None) for i, net in enumerate(nets)}


def of(nets: dict[str, Frozen], rule=ArithmeticMean, features: str | None = None, weights=(1.0, 1.0, 1.0)) -> Ensemble:
    combine = rule(weights, 1.0) if rule is ArithmeticMean else rule(weights)
    return Ensemble(nets, combine, weights, features)


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(6, *SHAPE, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (1.0, 3.0, 0.5)])
def test_the_arithmetic_mean_is_that_of_the_probabilities_at_its_temperature(x, temperature, weights):
    nets = members()
    logits = Ensemble(nets, ArithmeticMean(weights, temperature), weights, None)(x).logits
    probs = torch.stack([(net(x).logits / temperature).softmax(1) for net in nets.values()])
    share = torch.tensor(weights) / sum(weights)
    expected = (share[:, None, None] * probs).sum(0)
    torch.testing.assert_close((logits / temperature).softmax(1), expected, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(
        (logits / 7).softmax(1), torch.stack([(n(x).logits / 7).softmax(1) for n in nets.values()]).mean(0), atol=1e-6
    )


def test_the_geometric_mean_is_one_at_every_temperature(x):
    nets = members()
    logits = of(nets, GeometricMean)(x).logits
    for temperature in (1.0, 4.0, 20.0):
        logs = torch.stack([(net(x).logits / temperature).log_softmax(1) for net in nets.values()])
        torch.testing.assert_close((logits / temperature).log_softmax(1), logs.mean(0).log_softmax(1))


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (1.0, 3.0, 0.5)])
def test_the_mean_of_labels_is_that_of_each_probability_at_its_temperature(temperature, weights):
    logits = [5 * torch.randn(6, CLASSES, generator=torch.Generator().manual_seed(seed)) for seed in range(3)]
    found = LabelMean(weights, temperature)(logits).double() / temperature
    for i in range(6):
        for c in range(CLASSES):
            each = [w * torch.sigmoid(v[i, c].double() / temperature) for w, v in zip(weights, logits, strict=True)]
            torch.testing.assert_close(found[i, c].sigmoid(), sum(each) / sum(weights), rtol=1e-5, atol=1e-7)


def test_the_mean_of_labels_of_certain_members_is_finite():
    logits = [torch.tensor([[200.0, -200.0]]), torch.tensor([[200.0, -200.0]])]
    torch.testing.assert_close(LabelMean((1.0, 1.0), 1.0)(logits), logits[0])


def test_one_member_says_what_it_says_alone(x):
    nets = members(1)
    for rule in (ArithmeticMean, GeometricMean):
        torch.testing.assert_close(of(nets, rule, None, (1.0,))(x).logits.softmax(1), nets["m0"](x).logits.softmax(1))


def test_members_come_along_and_features_are_the_named_ones(x):
    nets = members()
    plain, named = of(nets)(x), of(nets, features="m2")(x)
    for found, net in zip(plain.members, nets.values(), strict=True):
        assert torch.equal(found.logits, net(x).logits)
    assert not plain.features
    wanted = nets["m2"](x).features
    assert named.features.keys() == wanted.keys() and all(torch.equal(named.features[k], v) for k, v in wanted.items())
    assert torch.equal(named.logits, plain.logits)
    ensemble = of(nets, features="m2")
    assert linear_head(ensemble, "teacher", "a term") is nets["m2"].net.head
    assert holder_of(ensemble, "preact_norms") is nets["m2"].net
    with pytest.raises(ValueError, match="it has none"):
        linear_head(of(nets), "teacher", "a term")


def test_members_of_other_classes_do_not_come_along(x):
    nets = {**members(2), "other": members(1, CLASSES + 1)["m0"]}

    class First:
        differentiable = False

        def __call__(self, logits):
            return logits[0]

    ensemble = Ensemble(nets, First(), (1.0,) * 3, None)
    assert ensemble(x).members == ()
    with pytest.raises(UserError, match="has no derivatives"):
        ensemble.through_inputs()


def test_it_never_trains_and_takes_no_gradient(x):
    ensemble = of(members())
    nn.Sequential(ensemble).train()
    assert not any(m.training for m in ensemble.modules())
    assert not any(p.requires_grad for p in ensemble.parameters())
    assert not ensemble(x.requires_grad_()).logits.requires_grad


def test_derivatives_go_through_every_member(x):
    nets = members()
    ensemble, inputs = of(nets, GeometricMean, features="m0"), x.clone().requires_grad_()
    with ensemble.through_inputs():
        (ours,) = torch.autograd.grad(ensemble(inputs).logits.sum(), inputs)
    expected = torch.zeros_like(x)
    for net in nets.values():
        with net.through_inputs():
            expected += torch.autograd.grad(net(inputs).logits.sum(), inputs)[0] / 3
    torch.testing.assert_close(ours, expected)
    assert not ensemble(inputs).logits.requires_grad
    limited = Ensemble({**nets, "m1": BlackBoxTeacher(nets["m1"], ())}, GeometricMean((1.0,) * 3), (1.0,) * 3, "m0")
    with pytest.raises(UserError, match="this ensemble has no derivatives"):
        limited.through_inputs()


def test_each_member_renormalises_the_inputs_for_itself(x):
    net = members(1)["m0"].net
    given = ((0.5,) * 3, (0.2,) * 3)
    nets = {"a": Frozen(net, None, None), "b": Frozen(net, ((0.1,) * 3, (0.3,) * 3), given)}
    found = of(nets, weights=(1.0, 1.0))(x).members
    torch.testing.assert_close(found[1].logits, net((x * 0.2 + 0.4) / 0.3).logits)
    assert not torch.allclose(found[0].logits, found[1].logits, atol=1e-3)


def test_members_that_know_a_batch_are_asked_about_it(x):
    class Knows(nn.Module):
        def of(self, batch: Batch) -> Outputs:
            return Outputs(batch.index.float().unsqueeze(1).expand(-1, CLASSES))

        def forward(self, x: torch.Tensor) -> Outputs:
            raise AssertionError("asked about inputs alone")

    index = torch.arange(6)
    ensemble = Ensemble({"a": Knows(), "b": Knows()}, GeometricMean((1.0, 1.0)), (1.0, 1.0), None)
    assert teacher_outputs(ensemble, Batch.of_classes(x, index, index)).logits[:, 0].tolist() == [0, 1, 2, 3, 4, 5]


def test_half_precision_members_are_combined_in_full():
    logits = [torch.tensor([[300.0, 0.0]]).bfloat16(), torch.tensor([[298.0, 1.0]]).bfloat16()]

    class Says(nn.Module):
        def __init__(self, v):
            super().__init__()
            self.v = v

        def forward(self, x):
            return Outputs(self.v)

    nets = {f"m{i}": Says(v) for i, v in enumerate(logits)}
    found = Ensemble(nets, GeometricMean((1.0, 1.0)), (1.0, 1.0), None)(torch.zeros(1)).logits
    assert found.dtype == torch.float32 and found.tolist() == [[299.0, 0.5]]  # not representable in bfloat16


def test_nobody_and_the_unknown_are_refused():
    with pytest.raises(ValueError, match="at least one member"):
        Ensemble({}, GeometricMean((1.0,)), (1.0,), None)
    with pytest.raises(ValueError, match="no member 'm9'; members: m0, m1, m2"):
        of(members(), features="m9")
    with pytest.raises(ValueError, match="above 0"):
        GeometricMean((1.0, 0.0))
