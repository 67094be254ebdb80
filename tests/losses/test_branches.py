"""Online distillation by branches (ONE, OKDDip, CL-ILR): targets by loops, and who is moved by whom."""

import math

import pytest
import torch
from torch.nn import functional as F

from kdx.core.batch import Batch
from kdx.core.outputs import Outputs, Shapes
from kdx.core.schedule import Progress
from kdx.losses.online.cl_ilr import MeanOfOthers
from kdx.losses.online.okddip import PeerAttention
from kdx.losses.online.one import GatedEnsemble
from kdx.tasks.classes import image_classes

NOW = Progress(0, 10, 10)
B, C, D = 4, 5, 6
SPEC = image_classes(C, (1, 2, 2), 10, (0.0,), (1.0,))
SHAPES = Shapes((C,), {"stage1": (3, 2, 2), "pooled": (D,)})


def members(count: int) -> list[Outputs]:
    generator = torch.Generator().manual_seed(count)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()

    trunk = drawn(B, 3, 2, 2)
    return [Outputs(drawn(B, C), {"stage1": trunk, "pooled": drawn(B, D)}) for _ in range(count)]


BATCH = Batch.of_classes(torch.zeros(B, 1), torch.arange(B) % C, torch.arange(B))


def made(term, count: int, shared: str | None = "stage1"):
    torch.manual_seed(0)
    term.build([SHAPES] * count, shared, SPEC)
    return term.double()


def soft(row: list[float], temperature: float) -> list[float]:
    powers = [math.exp(z / temperature) for z in row]
    return [p / sum(powers) for p in powers]


def kl(p: list[float], q: list[float]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def reached(value: torch.Tensor, tensors: list[torch.Tensor]) -> list[bool]:
    found = torch.autograd.grad(value.sum(), tensors, allow_unused=True, retain_graph=True)
    return [g is not None and bool(g.abs().sum() > 1e-12) for g in found]


@pytest.mark.parametrize("count", [2, 3])
def test_each_learns_from_the_mean_of_the_others(count: int):
    nets, term = members(count), MeanOfOthers(temperature=3.0, detach_peers=True)
    for i in range(count):
        value = term(nets, (i,), BATCH, NOW)["mutual"]
        for b in range(B):
            rows = [n.logits[b].tolist() for j, n in enumerate(nets) if j != i]
            mean = [sum(z) / len(rows) for z in zip(*rows, strict=True)]
            expected = 9 * kl(soft(mean, 3.0), soft(nets[i].logits[b].tolist(), 3.0))
            assert value[b].item() == pytest.approx(expected, rel=1e-10)
        assert reached(value, [n.logits for n in nets]) == [j == i for j in range(count)]
    free = MeanOfOthers(temperature=3.0, detach_peers=False)(nets, (0,), BATCH, NOW)["mutual"]
    assert all(reached(free, [n.logits for n in nets]))


def test_the_gate_weighs_the_branches_and_learns_from_labels_alone():
    nets = members(3)
    term = made(GatedEnsemble(temperature=3.0), 3)
    found = term(nets, (0, 1, 2), BATCH, NOW)
    rows = nets[0].features["stage1"].mean((2, 3)) @ term.gate.weight.T + term.gate.bias
    rows = (rows - rows.mean(0)) / (rows.var(0, unbiased=False) + term.norm.eps).sqrt()
    weights = rows.relu().softmax(1)
    together = sum(weights[:, k : k + 1] * nets[k].logits for k in range(3))
    assert torch.allclose(term.ensemble(nets), together, rtol=1e-9)
    for b in range(B):
        q = soft(together[b].tolist(), 3.0)
        expected = sum(9 * kl(q, soft(n.logits[b].tolist(), 3.0)) for n in nets)
        assert found["mutual"][b].item() == pytest.approx(expected, rel=1e-8)
        assert found["ensemble"][b].item() == pytest.approx(F.cross_entropy(together[b], BATCH.labels[b]).item())
    gate = [term.gate.weight, term.norm.weight]
    assert reached(found["ensemble"], gate) == [True, True]
    assert reached(found["mutual"], gate) == [False, False]
    assert reached(found["ensemble"], [n.logits for n in nets]) == [True] * 3
    alone = term(nets, (1,), BATCH, NOW)["mutual"]
    assert reached(alone, [n.logits for n in nets]) == [False, True, False]


def test_an_equal_gate_is_the_mean():
    nets, term = members(2), made(GatedEnsemble(temperature=1.0), 2)
    torch.nn.init.zeros_(term.norm.weight)
    assert torch.allclose(term.ensemble(nets), (nets[0].logits + nets[1].logits) / 2)


@pytest.mark.parametrize("mixed", ["logits", "probabilities"])
def test_attention_gives_each_peer_a_target_of_its_own(mixed):
    leader, *peers = nets = members(4)
    term = made(PeerAttention(temperature=3.0, width=2, mixed=mixed, detach_peers=True), 4)
    found = term(nets, range(4), BATCH, NOW)
    for b in range(B):
        total = 0.0
        for a in peers:
            query = term.query.weight @ a.features["pooled"][b]
            energies = [(query @ (term.key.weight @ p.features["pooled"][b])).item() for p in peers]
            attention = soft(energies, 1.0)
            if mixed == "logits":
                rows = [p.logits[b].tolist() for p in peers]
                mixture = [sum(w * z for w, z in zip(attention, c, strict=True)) for c in zip(*rows, strict=True)]
                target = soft(mixture, 3.0)
            else:
                rows = [soft(p.logits[b].tolist(), 3.0) for p in peers]
                target = [sum(w * z for w, z in zip(attention, c, strict=True)) for c in zip(*rows, strict=True)]
            total += 9 * kl(target, soft(a.logits[b].tolist(), 3.0))
        assert found["mutual"][b].item() == pytest.approx(total, rel=1e-8)
        mean = (sum(p.logits[b] for p in peers) / 3).tolist()
        led = 9 * kl(soft(mean, 3.0), soft(leader.logits[b].tolist(), 3.0))
        assert found["leader"][b].item() == pytest.approx(led, rel=1e-8)


@pytest.mark.parametrize("detach", [True, False])
def test_who_is_moved_by_okddip(detach: bool):
    nets = members(3)
    term = made(PeerAttention(temperature=3.0, width=2, mixed="logits", detach_peers=detach), 3)
    found = term(nets, range(3), BATCH, NOW)
    logits = [n.logits for n in nets]
    assert reached(found["leader"], logits) == [True, not detach, not detach]
    assert reached(found["mutual"], logits) == [False, True, True]
    # attention learns in any case, and through it the features that it compares
    assert reached(found["mutual"], [term.query.weight, term.key.weight]) == [True, True]


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="the gate of ONE reads what the networks share; choose method.shared"):
        made(GatedEnsemble(temperature=1.0), 2, shared=None)
    led = {"temperature": 1.0, "width": 2, "mixed": "logits", "detach_peers": True}
    with pytest.raises(ValueError, match="at least two peers beside the student, the leader"):
        made(PeerAttention(**led), 2)
    with pytest.raises(ValueError, match="different widths: .6, 7"):
        PeerAttention(**led).build([SHAPES, SHAPES, Shapes((C,), {"pooled": (7,)})], None, SPEC)
    with pytest.raises(ValueError, match="mixed must be 'logits' or 'probabilities', got 'sum'"):
        PeerAttention(**{**led, "mixed": "sum"})
