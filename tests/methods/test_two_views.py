"""Two views: who sees which, against the terms computed by hand; and MLKD as its authors run it."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from kdx.core.batch import Batch
from kdx.core.errors import UserError
from kdx.core.outputs import Outputs
from kdx.core.schedule import Progress
from kdx.losses.logits.cross_entropy import CrossEntropy
from kdx.losses.logits.kd import KD
from kdx.methods.two_views import TwoViews
from kdx.models.teachers.frozen import Frozen
from kdx.tasks.classes import image_classes

SPEC = image_classes(5, (3, 2, 2), 10, (0.0,) * 3, (1.0,) * 3)
START = Progress(0, 10, 10)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.head = nn.BatchNorm1d(12), nn.Linear(12, 5)

    def forward(self, x: torch.Tensor) -> Outputs:
        return Outputs(self.head(self.norm(x.flatten(1))))


def batch() -> Batch:
    torch.manual_seed(1)
    weak, strong, labels = torch.randn(8, 3, 2, 2), 2 * torch.randn(8, 3, 2, 2) + 1, torch.arange(8) % 5
    return Batch.of_classes(weak, labels, torch.arange(8), views=(strong,))


def method() -> TwoViews:
    torch.manual_seed(0)
    terms = {"ce": CrossEntropy(0.0), "kd": KD(4.0, "batchmean")}
    strong = {"strong_ce": CrossEntropy(0.0), "strong_kd": KD(2.0, "batchmean")}
    weights = dict.fromkeys((*terms, *strong), 1.0)
    own = dict(student=Net(), teacher=Frozen(Net(), None, None), spec=SPEC, terms=terms, weights=weights)
    return TwoViews(strong, temperature=None, **own)


def test_each_term_sees_its_own_view():
    two, data = method().eval(), batch()
    step = two(data, START)
    for prefix, inputs, temperature in (("", data.inputs, 4.0), ("strong_", data.views[0], 2.0)):
        z, v = two.student(inputs).logits, two.teacher(inputs).logits
        torch.testing.assert_close(step.terms[f"{prefix}ce"], F.cross_entropy(z, data.labels))
        q, p = (z / temperature).log_softmax(1), (v / temperature).softmax(1)
        kl = temperature**2 * F.kl_div(q, p, reduction="batchmean")
        torch.testing.assert_close(step.terms[f"{prefix}kd"], kl)
    assert list(step.terms) == list(two.weights)
    assert torch.equal(step.outputs.logits, two.student(data.inputs).logits)


def test_batch_norms_see_one_view_after_the_other():
    two, data, plain = method(), batch(), method().student
    two(data, START)
    plain(data.inputs), plain(data.views[0])
    assert torch.equal(two.student.norm.running_mean, plain.norm.running_mean)
    assert two.student.norm.num_batches_tracked == 2


def test_gradients_of_both_views_reach_the_student():
    grads = []
    for names in (("ce",), ("strong_ce",), ("ce", "strong_ce")):
        two = method().eval()
        step = two(batch(), START)
        sum(step.terms[n] for n in names).backward()
        grads.append(two.student.head.weight.grad)
    torch.testing.assert_close(grads[0] + grads[1], grads[2])


def test_one_view_and_shared_names_are_refused():
    with pytest.raises(UserError, match="augmentation makes one; choose augmentation=two_views"):
        method()(replace(batch(), views=()), START)
    with pytest.raises(UserError, match="both have: ce"):
        own = dict(student=Net(), teacher=Net(), spec=SPEC, weights={"ce": 1.0}, temperature=None)
        TwoViews({"ce": CrossEntropy(0.0)}, terms={"ce": CrossEntropy(0.0)}, **own)


def shipped(z: tuple[torch.Tensor, ...], v: tuple[torch.Tensor, ...], y: torch.Tensor) -> torch.Tensor:
    """The sum that the authors' code arrives at, from student's and teacher's logits on (weak, strong)."""

    def kl(i: int, t: float) -> torch.Tensor:
        return t**2 * F.kl_div((z[i] / t).log_softmax(1), (v[i] / t).softmax(1), reduction="batchmean")

    def gram(t: float, classes: bool) -> torch.Tensor:
        q, p = ((x[0] / t).softmax(1) for x in (z, v))
        q, p = (q.T, p.T) if classes else (q, p)
        return (p @ p.T - q @ q.T).square().sum() / len(p)

    p = v[0].softmax(1)
    samples, classes = (x.le(x.quantile(0.5)).double().mean() for x in (p.amax(1), p.sum(0)))
    total = 0.1 * (F.cross_entropy(z[0], y) + F.cross_entropy(z[1], y))
    for t in (4.0, 3.0, 5.0, 2.0, 6.0):
        total = total + 0.9 * (kl(0, t) * samples + gram(t, False) * samples + gram(t, True) * classes)
    return total + 0.9 * (kl(1, 4.0) + kl(1, 3.0) + kl(1, 5.0) + kl(0, 2.0) + kl(0, 6.0))


def test_mlkd_shipped_is_the_authors_sum(tiny, built):
    from kdx.core.weigh import weigh

    trainer = built(tiny("method=mlkd_shipped", "augmentation=two_views"))
    two = trainer.method.double().eval()
    data = next(iter(trainer.loader.epoch(0)))
    data = replace(data, inputs=data.inputs.double(), views=tuple(v.double() for v in data.views))
    z, v = (tuple(net(x).logits for x in (data.inputs, data.views[0])) for net in (two.student, two.teacher))
    actual = weigh(two(data, START).terms, two.weights, START)
    torch.testing.assert_close(actual, shipped(z, v, data.labels))
