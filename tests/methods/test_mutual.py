"""Networks that learn from each other: who sees what, who is moved by what, and what is delivered."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from kdx.core.batch import Batch
from kdx.core.errors import UserError
from kdx.core.schedule import Progress
from kdx.losses.online.dml import MutualDivergence
from kdx.methods.mutual import Mutual
from kdx.models.cifar.resnet import ResNet
from kdx.models.small import MLP
from kdx.tasks.classes import image_classes

SPEC = image_classes(3, (2, 8, 8), 32, (0.0,), (1.0,))
NOW = Progress(1, 8, 8)


def net(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return ResNet(depth=8, widths=(3, 3, 4, 5), num_classes=3, in_channels=2)


def mutual(networks: int = 2, **changed) -> Mutual:
    settings = {
        "exchange": MutualDivergence(temperature=1.0, average=True, detach_peers=True),
        "weights": {"ce": 1.0, "mutual": 1.0},
        "temperature": None,
        "label_smoothing": 0.0,
        "shared": None,
        "scale_trunk": False,
        "inputs": "same",
    }
    members = [net(i) for i in range(networks)]
    return Mutual(members[0], members[1:], SPEC, **settings | changed).double().train()


def batch(views: int = 0, size: int = 4) -> Batch:
    generator = torch.Generator().manual_seed(views)
    inputs, *others = torch.randn(views + 1, size, 2, 8, 8, generator=generator, dtype=torch.float64)
    return Batch.of_classes(inputs, torch.arange(size) % 3, torch.arange(size), views=tuple(others))


def reached(method: Mutual, value: torch.Tensor) -> set[str]:
    names, parameters = zip(*method.named_parameters(), strict=True)
    found = torch.autograd.grad(value, parameters, allow_unused=True, retain_graph=True)
    return {".".join(n.split(".")[:2]) for n, g in zip(names, found, strict=True) if g is not None and g.any()}


def test_a_peers_loss_moves_no_other_peer():
    method, data = mutual(3), batch()
    members = method.outputs([data.inputs] * 3)
    for i in range(3):
        found = reached(method, sum(method._terms(members, (i,), data, NOW).values()))
        assert found and {name.startswith("student") for name in found} == {i == 0}
        assert all(name.startswith(("student", f"peers.{i - 1}")) for name in found)


def test_in_turns_each_sees_what_the_ones_before_have_become():
    method, data = mutual(3), batch()
    networks = [method.student, *method.peers]
    turns = method.turns(data, NOW)
    for i, turn in enumerate(turns):
        logits = [n(data.inputs).logits.detach() for n in networks]
        ce = F.cross_entropy(logits[i], data.labels)
        log_q = logits[i].log_softmax(1)
        others = [logits[j].log_softmax(1) for j in range(3) if j != i]
        divergence = sum((p.exp() * (p - log_q)).sum(1).mean() for p in others) / 2
        assert turn.party == ("student", "peer1", "peer2")[i]
        assert turn.step.terms["ce"].item() == pytest.approx(ce.item(), rel=1e-10)
        assert turn.step.terms["mutual"].item() == pytest.approx(divergence.item(), rel=1e-10)
        with torch.no_grad():  # its step
            for p in networks[i].parameters():
                p.add_(0.1 * torch.randn_like(p))


def test_a_batch_is_taken_into_the_statistics_once():
    method, other, data = mutual(2), mutual(2), batch()
    for _ in method.turns(data, NOW):
        pass
    other(data, NOW)
    assert all(torch.equal(a, b) for a, b in zip(method.buffers(), other.buffers(), strict=True))
    assert {int(b) for n, b in method.named_buffers() if n.endswith("num_batches_tracked")} == {1}


def test_views_of_their_own():
    method, data = mutual(2, inputs="own"), batch(views=1)
    step = method(data, NOW)
    first, second = method.student(data.inputs).logits, method.peers[0](data.views[0]).logits
    expected = F.cross_entropy(first, data.labels) + F.cross_entropy(second, data.labels)
    assert step.terms["ce"].item() == pytest.approx(expected.item(), rel=1e-10)
    with pytest.raises(UserError, match="2 networks with method.inputs=own .* augmentation makes 1"):
        method(replace(data, views=()), NOW)


def test_branches_hold_their_last_stages_alone():
    method = mutual(3, shared="stage2")
    names = {name.removeprefix("peers.0.net.") for name in method.state_dict() if name.startswith("peers.0.")}
    assert names == {n for n in net(0).state_dict() if n.startswith(("layer3", "fc"))}
    assert method.parties() == {}


def test_branches_run_on_the_students_first_stages():
    method, data = mutual(3, shared="stage2"), batch()
    method.eval()
    whole = net(2).double().eval()
    trunk = {n: p for n, p in method.student.state_dict().items() if not n.startswith(("layer3", "fc"))}
    whole.load_state_dict({**whole.state_dict(), **trunk})
    found = method.models()["peer2"](data.inputs).logits
    assert torch.equal(found, whole(data.inputs).logits)
    assert torch.equal(found, method.outputs([data.inputs] * 3)[2].logits)


@pytest.mark.parametrize("scale", [True, False])
def test_the_gradient_of_a_shared_trunk_is_the_mean_over_the_branches(scale: bool):
    plain, scaled, data = mutual(3, shared="stage1"), mutual(3, shared="stage1", scale_trunk=scale), batch()
    for method in (plain, scaled):
        sum(method(data, NOW).terms.values()).backward()
    for (name, p), q in zip(plain.named_parameters(), scaled.parameters(), strict=True):
        in_trunk = name.startswith(("student.conv1", "student.bn1", "student.layer1"))
        assert p.grad is not None and q.grad is not None
        assert torch.allclose(q.grad, p.grad / 3 if in_trunk and scale else p.grad, rtol=1e-9, atol=1e-15), name


def test_all_but_the_last_stage():
    assert mutual(2, shared="all_but_last").shared == "stage2"


def test_the_trunk_runs_once():
    method, data, calls = mutual(3, shared="stage2"), batch(), []
    method.student.layer1.register_forward_hook(lambda *_: calls.append(1))
    method(data, NOW)
    assert calls == [1]


@pytest.mark.parametrize(
    "changed, told",
    [
        ({"shared": "stage9"}, "the student has no feature with role 'stage9'"),
        ({"shared": "pooled"}, "this network cannot resume from"),
        ({"shared": "stage2", "inputs": "own"}, "members that share stages see the same inputs"),
        ({"weights": {"ce": 1.0}}, "on one side only: mutual"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(changed: dict, told: str):
    with pytest.raises(UserError, match=told):
        mutual(2, **changed)


def test_networks_that_do_not_fit_are_refused_in_a_sentence():
    wide = ResNet(depth=8, widths=(3, 3, 6, 5), num_classes=3, in_channels=2)
    settings = {"weights": {"ce": 1.0, "mutual": 1.0}, "temperature": None, "label_smoothing": 0.0}
    settings |= {"exchange": MutualDivergence(1.0, True, True), "scale_trunk": False, "inputs": "same"}
    with pytest.raises(UserError, match="'stage2' has the shape .4, 4, 4. and a peer's .6, 4, 4."):
        Mutual(net(0), [wide], SPEC, shared="stage2", **settings)

    class Foreign(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = net(0)

        def forward(self, x):
            return self.inner(x)

    with pytest.raises(UserError, match="a Foreign cannot resume from a stage"):
        Mutual(net(0), [Foreign()], SPEC, shared="stage2", **settings)
    mlp = MLP(hidden=(5,), dropout=0.0, activation="relu", num_classes=3, input_shape=(2, 8, 8))
    Mutual(net(0), [mlp], SPEC, shared=None, **settings)
