"""Made-up images of several labels: reproducible, correlated as documented, and learnable."""

import pytest
import torch

from kdx.data.sets import DataError
from kdx.data.sources.multilabel import SyntheticLabels, correlated_labels, loadings, patterned_images
from kdx.metrics.multilabel import average_precision

FACTS = dict(name="multilabel", num_classes=6, input_shape=(1, 8, 8), mean=(0.5,), std=(0.25,), noise=0.15, seed=0)
REGIME = dict(fraction=1.0, fraction_seed=0, val_fraction=0.0, val_seed=0, train_subset=10)


def made(**changes) -> SyntheticLabels:
    own = dict(train_size=500, test_size=300, prevalence=0.3, shared=0.6)
    return SyntheticLabels(**{**FACTS, **REGIME, **own, **changes})


def test_it_is_a_function_of_its_seed():
    first, again, other = (made(seed=s).load() for s in (0, 0, 1))
    for a, b, c in zip(first, again, other, strict=True):
        assert torch.equal(a.images, b.images) and torch.equal(a.targets["presence"], b.targets["presence"])
        assert not torch.equal(a.images, c.images)
    train, test = first
    assert not torch.equal(train.images[:300], test.images)
    assert set(train.targets["presence"].unique().tolist()) == {0.0, 1.0}


def test_more_examples_of_the_test_set_change_no_training_example():
    assert torch.equal(made(test_size=10).load()[0].images, made(test_size=900).load()[0].images)


def test_labels_hold_as_often_as_the_config_says():
    labels = correlated_labels(200_000, 6, 0.3, 0.6, seed=3, split="train")
    expected = torch.linspace(0.15, 0.45, 6).double()
    torch.testing.assert_close(labels.double().mean(0), expected, rtol=0, atol=0.005)


@pytest.mark.parametrize("sign", [-1, 1])
def test_scores_correlate_by_the_shared_variance_times_the_cosine(sign: int):
    def cosine(seed: int) -> float:
        return float(loadings(2, seed)[0] @ loadings(2, seed)[1])

    seed = next(s for s in range(100) if sign * cosine(s) > 0.7)
    labels = correlated_labels(200_000, 2, 0.4, 0.6, seed, "train").double()
    # the probability of both, by drawing pairs of normal numbers with this correlation
    x, own = torch.randn(2, 400_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    correlation = 0.6 * cosine(seed)
    y = correlation * x + (1 - correlation**2) ** 0.5 * own
    low = torch.special.ndtri(1 - torch.tensor([0.2, 0.6], dtype=torch.float64))
    both = float(((x > low[0]) & (y > low[1])).double().mean())
    assert float(labels.prod(1).mean()) == pytest.approx(both, abs=0.005)
    assert sign * (both - 0.2 * 0.6) > 0.02


def test_labels_without_a_shared_part_are_independent():
    labels = correlated_labels(200_000, 6, 0.3, 0.0, seed=3, split="train").double()
    correlation = torch.corrcoef(labels.T) - torch.eye(6)
    assert correlation.abs().max() < 0.01
    together = torch.corrcoef(correlated_labels(200_000, 6, 0.3, 0.6, seed=3, split="train").double().T) - torch.eye(6)
    assert together.abs().max() > 0.2


def test_images_add_up_the_patterns_of_the_labels_that_hold():
    one, two, both, none = torch.tensor([[1, 0], [0, 1], [1, 1], [0, 0]]).bool()
    images = [
        patterned_images(p[None], (1, 8, 8), 0.0, seed=0, split="train")[0].int() - 128 for p in (one, two, both, none)
    ]
    assert images[3].abs().max() <= 1
    assert (images[0] + images[1] - images[2]).abs().max() <= 2
    assert images[0].abs().max() > 20


def test_a_linear_model_learns_it():
    train, test = made(train_size=1000).load()
    (x, y), (z, w) = ((d.images.flatten(1).double() / 255 - 0.5, d.targets["presence"].double()) for d in (train, test))
    x, z = (torch.cat([t, torch.ones(len(t), 1).double()], 1) for t in (x, z))
    weights = torch.linalg.lstsq(x.T @ x + 0.1 * torch.eye(x.shape[1]).double(), x.T @ y).solution
    found = average_precision(z @ weights, w)
    assert (found > 2 * w.mean(0)).all() and found.mean() > 0.7


def test_a_prevalence_that_one_label_cannot_have_is_refused():
    with pytest.raises(DataError, match="prevalence must be below 2/3"):
        made(prevalence=0.7).task  # noqa: B018
