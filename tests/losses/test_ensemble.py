"""Terms on the members of an ensemble, against loops over Python floats and against each other."""

import math
from typing import Any

import loss_references as reference
import pytest
import torch
from law_case import CLASSES, START
from loss_references import kl, softmax
from torch import Tensor, nn

from kdx.core.batch import Batch
from kdx.core.outputs import Outputs
from kdx.losses.base.weighting import Confidence, Constant, DropMembers, EntropyShare, RandomMember, Weighting, entropy
from kdx.losses.features.fitnet import FitNet
from kdx.losses.logits.cross_entropy import CrossEntropy
from kdx.losses.logits.dkd import DKD
from kdx.losses.logits.ensemble import EachMember, EnsembleKD, softened_mean
from kdx.losses.logits.kd import KD, kl_divergence
from kdx.losses.logits.logit_mse import LogitMSE

SIZE, MEMBERS = 4, 3
MEANS: tuple[Any, ...] = ("arithmetic", "geometric")


class Weighed(nn.Module):
    """As much of an ensemble as terms look at."""

    def __init__(self, weights: tuple[float, ...]):
        super().__init__()
        self.members, self.weights = nn.ModuleList(), weights


@pytest.fixture(autouse=True)
def a_seed():
    torch.manual_seed(0)


def scene(members: int = MEMBERS) -> tuple[Outputs, Outputs, Batch]:
    student = Outputs((3 * torch.randn(SIZE, CLASSES).double()).requires_grad_())
    each = tuple(Outputs(3 * torch.randn(SIZE, CLASSES).double()) for _ in range(members))
    labels = torch.arange(SIZE) % CLASSES
    return student, Outputs(torch.zeros(SIZE, CLASSES).double(), {}, each), Batch.of_classes(labels, labels, labels)


def mean_of(rows: list[list[float]], weights: list[float], mean: str) -> list[float]:
    """The mean of distributions by the definition."""
    shares = [w / math.fsum(weights) for w in weights]
    if mean == "arithmetic":
        return [math.fsum(w * p for w, p in zip(shares, column, strict=True)) for column in zip(*rows, strict=True)]
    powers = [math.prod(p**w for w, p in zip(shares, column, strict=True)) for column in zip(*rows, strict=True)]
    return [p / math.fsum(powers) for p in powers]


def gradient(rows: Tensor, student: Outputs) -> Tensor:
    return torch.autograd.grad(rows.sum(), student.logits)[0]


def test_the_code_and_the_loop_agree_with_an_easy_case_by_hand():
    rows, weights = [[0.5, 0.5], [0.9, 0.1]], [1.0, 3.0]
    odds = (0.5 / 0.5) ** 0.25 * (0.9 / 0.1) ** 0.75
    for mean, expected in (("arithmetic", [0.8, 0.2]), ("geometric", [odds / (1 + odds), 1 / (1 + odds)])):
        assert mean_of(rows, weights, mean) == pytest.approx(expected)
        members = torch.tensor(rows).double().log()[:, None]
        code = softened_mean(members, torch.tensor([weights]).double(), 1.0, mean).exp()
        assert code.tolist() == [pytest.approx(expected)]


@pytest.mark.parametrize("mean", MEANS)
@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (0.5, 2.0, 1.0)])
def test_divergence_from_the_mean_equals_the_loop(mean: Any, weights: tuple[float, ...]):
    student, teacher, batch = scene()
    term = EnsembleKD(2.5, mean, Constant(), "batchmean")
    term.attach(nn.Module(), Weighed(weights))
    expected = [
        2.5**2 * kl(mean_of([softmax(v, 2.5) for v in each], list(weights), mean), softmax(z, 2.5))
        for z, *each in zip(student.logits.tolist(), *(m.logits.tolist() for m in teacher.members), strict=True)
    ]
    assert term(student, teacher, batch, START).tolist() == pytest.approx(expected, rel=1e-9)
    mean_over_classes = EnsembleKD(2.5, mean, Constant(), "mean")
    mean_over_classes.attach(nn.Module(), Weighed(weights))
    expected = [e / CLASSES for e in expected]
    assert mean_over_classes(student, teacher, batch, START).tolist() == pytest.approx(expected, rel=1e-9)


def test_each_members_divergences_have_the_gradient_of_the_arithmetic_means():
    student, teacher, batch = scene()
    each = EachMember(KD(3.0, "batchmean"), Constant(), "mean")(student, teacher, batch, START)
    together = EnsembleKD(3.0, "arithmetic", Constant(), "batchmean")(student, teacher, batch, START)
    geometric = EnsembleKD(3.0, "geometric", Constant(), "batchmean")(student, teacher, batch, START)
    wanted = gradient(together, student)
    torch.testing.assert_close(gradient(each, student), wanted, rtol=1e-9, atol=1e-12)
    assert not torch.allclose(gradient(geometric, student), wanted, rtol=1e-2)
    assert (each > together).all()  # by the members' disagreement, a constant


def test_the_geometric_mean_is_the_mean_of_logits():
    student, teacher, batch = scene()
    logits = torch.stack([m.logits for m in teacher.members])
    ours = EnsembleKD(3.0, "geometric", Constant(), "batchmean")(student, teacher, batch, START)
    torch.testing.assert_close(ours, kl_divergence(student.logits, logits.mean(0), 3.0, "batchmean"))


@pytest.mark.parametrize("inner", [KD(2.0, "batchmean"), DKD(1.0, 2.0, 2.0), LogitMSE("half_sum")])
@pytest.mark.parametrize(("across", "scale"), [("mean", 1 / 2), ("sum", 1.0), ("count", 1 / 2)])
def test_each_member_adds_up_any_term(inner: Any, across: Any, scale: float):
    student, teacher, batch = scene(2)
    rows = EachMember(inner, Constant(), across)(student, teacher, batch, START)
    torch.testing.assert_close(rows, scale * sum(inner(student, m, batch, START) for m in teacher.members))
    weighed = EachMember(inner, Constant(), "sum")
    weighed.attach(nn.Module(), Weighed((2.0, 0.5)))
    one, two = (inner(student, m, batch, START) for m in teacher.members)
    torch.testing.assert_close(weighed(student, teacher, batch, START), 2 * one + two / 2)


def weights_of(weighting: Weighting, teacher: Outputs, batch: Batch, own: tuple[float, ...] = (1.0,) * 3) -> Tensor:
    return weighting([m.logits for m in teacher.members], torch.tensor(own).double(), batch)


def test_the_code_of_ca_mkd_divides_by_the_number_of_teachers():
    """Its weights sum to 1 already, so its loss is a third of the paper's for three teachers."""
    student, teacher, batch = scene()
    for weighting in (Confidence("cross_entropy"), Confidence("entropy")):
        paper, code = (
            EachMember(KD(4.0, "batchmean"), weighting, across)(student, teacher, batch, START)
            for across in ("mean", "count")
        )
        torch.testing.assert_close(code, paper / 3)


def test_shares_of_the_entropies_equal_the_loop():
    """`sum_m (1 - h_m / sum_k h_k) KL_m / M` over Python floats."""
    student, teacher, batch = scene()
    rows = EachMember(KD(4.0, "batchmean"), EntropyShare(), "count")(student, teacher, batch, START)
    expected = []
    for z, *each in zip(student.logits.tolist(), *(m.logits.tolist() for m in teacher.members), strict=True):
        entropies = [-math.fsum(p * math.log(p) for p in softmax(v, 1.0)) for v in each]
        losses = [16 * kl(softmax(v, 4.0), softmax(z, 4.0)) for v in each]
        weighed = [(1 - h / math.fsum(entropies)) * one for h, one in zip(entropies, losses, strict=True)]
        expected.append(math.fsum(weighed) / 3)
    assert rows.tolist() == pytest.approx(expected, rel=1e-9)


def test_shares_of_no_entropy_are_equal_and_a_single_member_has_its_own_weight():
    _, teacher, batch = scene()
    certain = Outputs(teacher.logits, {}, tuple(Outputs(1e6 * m.logits) for m in teacher.members))
    torch.testing.assert_close(weights_of(EntropyShare(), certain, batch), torch.full((SIZE, 3), 2 / 3).double())
    alone = Outputs(teacher.logits, {}, teacher.members[:1])
    assert weights_of(EntropyShare(), alone, batch, (0.7,)).tolist() == [[pytest.approx(0.7)]] * SIZE
    own = weights_of(EntropyShare(), teacher, batch, (2.0, 1.0, 1.0))
    torch.testing.assert_close(own[:, 0], 2 * weights_of(EntropyShare(), teacher, batch)[:, 0])


@pytest.mark.parametrize("measure", ["cross_entropy", "entropy"])
def test_confidence_equals_the_loop(measure: Any):
    _, teacher, batch = scene()
    expected = []
    for i in range(SIZE):
        probs = [softmax(m.logits[i].tolist(), 1.0) for m in teacher.members]
        label = int(batch.labels[i])
        doubts = [
            -math.log(p[label]) if measure == "cross_entropy" else -math.fsum(x * math.log(x) for x in p) for p in probs
        ]
        expected.append([(1 - s) / (MEMBERS - 1) for s in softmax(doubts, 1.0)])
    found = weights_of(Confidence(measure), teacher, batch)
    torch.testing.assert_close(found, torch.tensor(expected).double())
    torch.testing.assert_close(found.sum(1), torch.ones(SIZE).double())
    # who is surer of it counts more
    order = torch.stack([m.logits.log_softmax(1)[range(SIZE), batch.labels] for m in teacher.members], 1)
    if measure == "cross_entropy":
        assert (found.argmax(1) == order.argmax(1)).all()


def test_soft_labels_are_what_confidence_is_measured_by_where_there_are_any():
    _, teacher, batch = scene()
    soft = torch.nn.functional.one_hot(batch.labels, CLASSES).double()
    mixed = Batch.of_classes(batch.inputs, (batch.labels + 1) % CLASSES, batch.index, soft)
    ours = weights_of(Confidence("cross_entropy"), teacher, mixed)
    torch.testing.assert_close(ours, weights_of(Confidence("cross_entropy"), teacher, batch))


def test_one_of_them_is_drawn_for_the_whole_batch_as_often_as_it_weighs():
    _, teacher, batch = scene()
    drawn = torch.stack([weights_of(RandomMember(), teacher, batch, (1.0, 2.0, 5.0)) for _ in range(4000)])
    assert (drawn == drawn[:, :1]).all() and set(drawn.flatten().tolist()) == {0.0, 1.0}
    assert (drawn.sum(2) == 1).all()
    torch.testing.assert_close(drawn[:, 0].mean(0), torch.tensor([1, 2, 5]).double() / 8, rtol=0, atol=0.03)


@pytest.mark.parametrize(("count", "kept"), [(1, 2), (2, 1), (7, 1)])
def test_so_many_are_dropped_and_one_always_stays(count: int, kept: int):
    _, teacher, batch = scene()
    drawn = torch.stack([weights_of(DropMembers(count), teacher, batch, (1.0, 2.0, 5.0)) for _ in range(2000)])
    assert (drawn == drawn[:, :1]).all()
    present = drawn[:, 0] > 0
    assert (present.sum(1) == kept).all()
    torch.testing.assert_close(present.double().mean(0), torch.full((3,), kept / 3).double(), rtol=0, atol=0.05)
    assert (drawn[:, 0][present] == torch.tensor([1.0, 2.0, 5.0]).double().expand(2000, -1)[present]).all()


def test_what_is_drawn_is_what_the_term_learns_from():
    student, teacher, batch = scene()
    inner = KD(2.0, "mean")
    alone = [inner(student, m, batch, START) for m in teacher.members]
    term = EachMember(inner, DropMembers(2), "sum")
    found = {
        min(range(3), key=lambda i, r=rows: float((alone[i] - r).abs().sum())): rows
        for rows in (term(student, teacher, batch, START) for _ in range(40))
    }
    assert set(found) == {0, 1, 2}
    for i, rows in found.items():
        torch.testing.assert_close(rows, alone[i])


def test_dgkd_adds_up_the_divergences_of_all_teachers_divided_by_the_classes():
    student, teacher, batch = scene()
    rows = EachMember(KD(5.0, "mean"), Constant(), "sum")(student, teacher, batch, START)
    expected = [
        math.fsum(25 * kl(softmax(v, 5.0), softmax(z, 5.0)) / CLASSES for v in each)
        for z, *each in zip(student.logits.tolist(), *(m.logits.tolist() for m in teacher.members), strict=True)
    ]
    assert rows.tolist() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("mean", MEANS)
def test_extreme_members_leave_finite_values_and_gradients(mean: Any):
    logits = torch.tensor([[100.0, -100.0, 0.0], [-100.0, 100.0, 0.0]]).unsqueeze(1)
    student = Outputs(torch.tensor([[-100.0, 0.0, 100.0]], requires_grad=True))
    teacher = Outputs(logits[0], {}, tuple(Outputs(v) for v in logits))
    label = torch.zeros(1, dtype=torch.int64)
    for weighting in (Constant(), Confidence("cross_entropy"), Confidence("entropy"), RandomMember(), DropMembers(1)):
        rows = EnsembleKD(1.0, mean, weighting, "batchmean")(
            student, teacher, Batch.of_classes(label, label, label), START
        )
        assert rows.isfinite().all() and gradient(rows, student).isfinite().all()


def test_the_entropy_of_no_knowledge_is_log_c():
    torch.testing.assert_close(entropy(torch.zeros(2, 7)), torch.full((2,), math.log(7)))
    assert entropy(torch.tensor([[1000.0, 0.0]])).tolist() == [0.0]


def test_gradients_reach_the_student_alone():
    student, teacher, batch = scene()
    members = tuple(Outputs(m.logits.requires_grad_()) for m in teacher.members)
    for term in (
        EnsembleKD(2.0, "arithmetic", Confidence("cross_entropy"), "batchmean"),
        EachMember(KD(2.0, "batchmean"), Confidence("entropy"), "mean"),
    ):
        term(student, Outputs(teacher.logits, {}, members), batch, START).sum().backward()
        assert student.logits.grad is not None and all(m.logits.grad is None for m in members)


def test_what_cannot_be_added_up_is_refused():
    with pytest.raises(ValueError, match="reads no teacher"):
        EachMember(CrossEntropy(0.0), Constant(), "mean")
    with pytest.raises(ValueError, match="FitNet is not"):
        EachMember(FitNet("stage1", "stage1"), Constant(), "mean")
    wrong: Any = "harmonic"
    with pytest.raises(ValueError, match="arithmetic"):
        EnsembleKD(1.0, wrong, Constant(), "batchmean")
    with pytest.raises(ValueError, match="arithmetic"):
        softened_mean(torch.zeros(1, 1, 2), torch.ones(1, 1), 1.0, wrong)


def test_an_ensemble_of_equals_is_one_of_them():
    student, teacher, batch = scene(1)
    twins = Outputs(teacher.logits, {}, teacher.members * 3)
    one = reference.kd(4.0)(KD(4.0, "batchmean"), student, teacher.members[0], batch)
    for weighting in (Constant(), Confidence("cross_entropy"), RandomMember(), DropMembers(1)):
        for mean in MEANS:
            rows = EnsembleKD(4.0, mean, weighting, "batchmean")(student, twins, batch, START)
            assert rows.tolist() == pytest.approx(one, rel=1e-9)
