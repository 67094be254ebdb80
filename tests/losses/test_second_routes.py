"""Losses that no public code was held against, derived a second time: other routes than the loops of the laws.

The routes are torch's distributions, entropies, enumeration of events, constrained least squares, grids, closed forms
of two-layer networks and expectations over noise.
"""

import itertools

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Categorical, kl_divergence

from kdx.core.batch import Batch
from kdx.core.outputs import Outputs
from kdx.core.schedule import Progress
from kdx.losses.features.input_gradient import InputGradient
from kdx.losses.features.jacobian import JacobianDistance
from kdx.losses.logits.binary import BinaryKL
from kdx.losses.logits.cross_entropy import CrossEntropy
from kdx.losses.logits.divergences import JensenShannon, ReverseKL, SymmetricKL, TotalVariation
from kdx.losses.logits.logit_mse import LogitMSE
from kdx.losses.online.cl_ilr import MeanOfOthers
from kdx.losses.online.discriminator import deception, discrimination
from kdx.losses.online.kdcl import best_mixture, least_error_weights, min_logit_target, naive_target
from kdx.losses.wrappers.noise import perturbed
from kdx.methods.input_gradients import InputGradients
from kdx.methods.sobolev import Sobolev
from kdx.models.teachers.frozen import Frozen
from kdx.tasks.classes import image_classes

SIZE, CLASSES, INPUTS, HIDDEN = 4, 3, 4, 5
START = Progress(0, 10, 10)
SPEC = image_classes(CLASSES, (1, 2, 2), 50, (0.0,), (1.0,), torch.arange(50) % CLASSES)


@pytest.fixture(autouse=True)
def a_seed():
    torch.manual_seed(0)


def logits(*shape: int) -> Tensor:
    return 2 * torch.randn(*shape, dtype=torch.float64)


def batch_of(size: int) -> Batch:
    index = torch.arange(size)
    return Batch.of_classes(torch.randn(size, 1, 2, 2, dtype=torch.float64), index % CLASSES, index)


def entropy(p: Tensor) -> Tensor:
    return torch.special.entr(p).sum(-1)


# ---- divergences ----


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_reverse_and_symmetric_kl_are_those_of_torchs_distributions(temperature: float):
    z, v = logits(6, 5), logits(6, 5)
    q, p = Categorical(logits=z / temperature), Categorical(logits=v / temperature)
    scale = temperature**2
    rows = ReverseKL(temperature)(Outputs(z), Outputs(v), batch_of(6), START)
    torch.testing.assert_close(rows, scale * kl_divergence(q, p))
    rows = SymmetricKL(temperature)(Outputs(z), Outputs(v), batch_of(6), START)
    torch.testing.assert_close(rows, scale * (kl_divergence(p, q) + kl_divergence(q, p)) / 2)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_jensen_shannon_is_the_entropy_of_the_mean_minus_the_mean_entropy(temperature: float):
    z, v = logits(6, 5), logits(6, 5)
    q, p = (x.div(temperature).softmax(1) for x in (z, v))
    rows = JensenShannon(temperature)(Outputs(z), Outputs(v), batch_of(6), START)
    torch.testing.assert_close(rows, temperature**2 * (entropy((p + q) / 2) - (entropy(p) + entropy(q)) / 2))


def test_total_variation_is_the_largest_difference_of_an_events_probability():
    z, v = logits(6, 5), logits(6, 5)
    q, p = z.softmax(1), v.softmax(1)
    events = torch.tensor(list(itertools.product([0.0, 1.0], repeat=5)), dtype=torch.float64)
    largest = ((p - q) @ events.T).amax(1)
    torch.testing.assert_close(TotalVariation(1.0)(Outputs(z), Outputs(v), batch_of(6), START), largest)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_binary_kl_is_that_of_torchs_bernoullis(temperature: float):
    z, v = logits(6, 5), logits(6, 5)
    expected = kl_divergence(Bernoulli(logits=v / temperature), Bernoulli(logits=z / temperature))
    rows = BinaryKL(temperature, "mean")(Outputs(z), Outputs(v), batch_of(6), START)
    torch.testing.assert_close(rows, temperature**2 * expected.mean(1))


# ---- peers ----


def test_cl_ilr_learns_from_the_leave_one_out_mean():
    """The mean of the others as a matrix, (11' - I) / (M - 1), and the divergence of torch's distributions."""
    members = [Outputs(logits(6, 5)) for _ in range(4)]
    leave_one_out = (torch.ones(4, 4) - torch.eye(4)).double() / 3
    others = torch.einsum("mk,kbc->mbc", leave_one_out, torch.stack([m.logits for m in members]))
    pairs = zip(others, members, strict=True)
    softened = [(Categorical(logits=o / 3), Categorical(logits=m.logits / 3)) for o, m in pairs]
    expected = [9 * kl_divergence(p, q) for p, q in softened]
    for learners in ([0, 1, 2, 3], [2]):
        rows = MeanOfOthers(3.0, True)(members, learners, batch_of(6), START)["mutual"]
        torch.testing.assert_close(rows, torch.stack([expected[i] for i in learners]).sum(0))


def test_kdcls_linear_rule_finds_the_best_point_of_a_fine_grid():
    stacked, targets = logits(3, 6, 4), torch.eye(4).double()[torch.arange(6) % 4]
    points = [(i, j, 40 - i - j) for i in range(41) for j in range(41 - i)]
    grid = torch.tensor(points, dtype=torch.float64) / 40
    losses = -(torch.einsum("gk,kbc->gbc", grid, stacked).log_softmax(2) * targets).sum(2)
    weights = best_mixture(stacked, targets)
    torch.testing.assert_close(weights.sum(0), torch.ones(6).double())
    found = -(((weights[:, :, None] * stacked).sum(0)).log_softmax(1) * targets).sum(1)
    assert (weights >= 0).all() and (found <= losses.amin(0) + 1e-4).all()
    assert (found >= losses.amin(0) - 0.05).all()


def test_kdcls_general_rule_solves_the_constrained_least_squares():
    """min w' C w with sum w = 1, by the system of Lagrange's conditions."""
    root = torch.randn(3, 20).double()
    covariance = root @ root.T / 20
    system = torch.ones(4, 4).double()
    system[:3, :3], system[3, 3] = 2 * covariance, 0
    solution = torch.linalg.solve(system, torch.tensor([0.0, 0, 0, 1]).double())
    torch.testing.assert_close(least_error_weights(covariance), solution[:3], rtol=1e-4, atol=1e-5)


def test_kdcls_naive_and_min_logit_rules_by_example():
    stacked, labels = logits(3, 6, 4), torch.arange(6) % 4
    targets = torch.eye(4).double()[labels]
    naive, least = naive_target(stacked, targets), min_logit_target(stacked, labels)
    for b, label in enumerate(labels.tolist()):
        surest = max(range(3), key=lambda k, b=b, label=label: stacked[k, b].softmax(0)[label].item())
        assert torch.equal(naive[b], stacked[surest, b])
        for c in range(4):
            assert least[b, c] == min(stacked[k, b, c] - stacked[k, b, label] for k in range(3))


# ---- adversaries ----


def test_the_best_discriminator_measures_the_jensen_shannon_divergence():
    """Goodfellow 2014: at D = p / (p + q) the loss is 2 log 2 - 2 JS(p, q), its minimum over D."""
    p, q = (torch.rand(6, dtype=torch.float64) for _ in range(2))
    p, q = p / p.sum(), q / q.sum()

    def loss(odds: Tensor) -> Tensor:
        # discrimination is one value per pair of rows; p and q weigh its two halves
        real, fake = discrimination(odds, torch.full_like(odds, -1e9)), discrimination(torch.full_like(odds, 1e9), odds)
        return (p * real).sum() + (q * fake).sum()

    best = (p / q).log()
    divergence = entropy((p + q) / 2) - (entropy(p) + entropy(q)) / 2
    expected = 2 * torch.tensor(2.0).log().double() - 2 * divergence
    torch.testing.assert_close(loss(best), expected)
    assert all(loss(best + 0.1 * torch.randn(6)) > expected for _ in range(10))


def test_the_two_sides_are_cross_entropies_with_labels_of_their_own():
    real, fake = logits(6), logits(6)
    ones, zeros = torch.ones(6).double(), torch.zeros(6).double()
    entropies = nn.functional.binary_cross_entropy_with_logits
    expected = entropies(real, ones, reduction="none") + entropies(fake, zeros, reduction="none")
    torch.testing.assert_close(discrimination(real, fake), expected)
    torch.testing.assert_close(deception(fake), entropies(fake, ones, reduction="none"))


# ---- derivatives with respect to inputs ----


class TwoLayers(nn.Module):
    """Logits `W2 tanh(W1 x)`, whose Jacobian is `W2 diag(1 - tanh^2) W1`."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(INPUTS, HIDDEN, bias=False), nn.Linear(HIDDEN, CLASSES, bias=False)

    def forward(self, x: Tensor) -> Outputs:
        return Outputs(self.second(self.first(x.flatten(1)).tanh()))

    def jacobian(self, x: Tensor) -> Tensor:
        """[B, C, D], by matrix products."""
        slope = 1 - (x.flatten(1) @ self.first.weight.T).tanh().square()
        return torch.einsum("ch,bh,hd->bcd", self.second.weight, slope, self.first.weight).detach()


def networks() -> tuple[TwoLayers, TwoLayers]:
    return TwoLayers(), TwoLayers()


def log_prob_jacobian(net: TwoLayers, x: Tensor) -> Tensor:
    probs = net(x).logits.softmax(1).detach()
    logit_jacobian = net.jacobian(x)
    return logit_jacobian - torch.einsum("bk,bkd->bd", probs, logit_jacobian)[:, None]


@pytest.mark.parametrize("normalised", [False, True])
def test_at_grad_is_the_distance_of_closed_form_gradients(normalised: bool):
    student, teacher = networks()
    own = dict(student=student, teacher=Frozen(teacher, None, None), spec=SPEC, weights={"ce": 0.0, "gradient": 1.0})
    terms = {"ce": CrossEntropy(0.0), "gradient": InputGradient(normalised)}
    method, batch = InputGradients("cross_entropy", temperature=None, terms=terms, **own).double(), batch_of(SIZE)
    gradients = []
    for net in (student, teacher):
        error = net(batch.inputs).logits.softmax(1).detach() - torch.eye(CLASSES).double()[batch.labels]
        gradient = torch.einsum("bc,bcd->bd", error, net.jacobian(batch.inputs))
        gradients.append(nn.functional.normalize(gradient, dim=1) if normalised else gradient)
    expected = (gradients[0] - gradients[1]).square().sum(1).mean() / (1 if normalised else 2)
    # the method hands features on in single precision
    torch.testing.assert_close(method(batch, START).terms["gradient"].double(), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("quantity", ["logits", "log_probs", "probs"])
def test_sobolev_is_the_frobenius_distance_of_closed_form_jacobians(quantity):
    student, teacher = networks()
    own = dict(student=student, teacher=Frozen(teacher, None, None), spec=SPEC, weights={"mse": 0.0, "jacobian": 1.0})
    terms = {"mse": LogitMSE("mean"), "jacobian": JacobianDistance()}
    method = Sobolev("full", quantity, 1, True, temperature=None, terms=terms, **own)
    batch = Batch.of_classes(torch.randn(SIZE, 1, 2, 2), torch.arange(SIZE) % CLASSES, torch.arange(SIZE))
    jacobians = []
    for net in (student, teacher):
        found = net.jacobian(batch.inputs) if quantity == "logits" else log_prob_jacobian(net, batch.inputs)
        if quantity == "probs":  # dp = p dlog p
            found = net(batch.inputs).logits.softmax(1).detach()[:, :, None] * found
        jacobians.append(found)
    expected = (jacobians[0] - jacobians[1]).square().sum((1, 2)).mean()
    torch.testing.assert_close(method(batch, START).terms["jacobian"], expected, rtol=1e-4, atol=1e-6)


# ---- noise ----


def test_a_noisy_teachers_mean_loss_is_the_plain_loss_and_half_the_noises_variance():
    """Sau 2016: E |z - v'|^2 / 2 = |z - v|^2 / 2 + fraction sigma^2 |v|^2 / 2 for multiplicative noise."""
    z, v = logits(1, 5), logits(1, 5)
    many, fraction, sigma = 200_000, 0.5, 0.6
    noisy = perturbed(v.expand(many, -1), "multiplicative", "logit", "sample", fraction, sigma)
    rows = LogitMSE("half_sum")(Outputs(z.expand(many, -1)), Outputs(noisy), batch_of(1), START)
    expected = (z - v).square().sum() / 2 + fraction * sigma**2 * v.square().sum() / 2
    error = rows.std() / many**0.5
    assert abs(rows.mean() - expected) < 4 * error and error < 0.02 * expected


def test_a_noisy_students_mean_gradient_shrinks_its_logits():
    """E d/dz |(1 + xi) z - v|^2 / 2 = z (1 + fraction sigma^2) - v."""
    z, v = logits(1, 5), logits(1, 5)
    many, fraction, sigma = 200_000, 0.5, 0.6
    copies = z.expand(many, -1).clone().requires_grad_()
    noisy = perturbed(copies, "multiplicative", "logit", "sample", fraction, sigma)
    LogitMSE("half_sum")(Outputs(noisy), Outputs(v.expand(many, -1)), batch_of(1), START).sum().backward()
    assert copies.grad is not None
    expected, error = z * (1 + fraction * sigma**2) - v, copies.grad.std(0) / many**0.5
    assert ((copies.grad.mean(0) - expected).abs() < 4.5 * error).all()
