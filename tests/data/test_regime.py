"""Laws of fractions and subsets, and errors for data that does not match the config."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from test_loaders import synthetic

from kdx.data.regime import balanced, stratified
from kdx.data.sets import DataError, TensorSet
from kdx.data.sources.digits import Digits

DIGITS = Digits(
    name="digits",
    num_classes=10,
    input_shape=(1, 8, 8),
    mean=(0.3042,),
    std=(0.3757,),
    fraction=1.0,
    fraction_seed=0,
    val_fraction=0.0,
    val_seed=0,
    train_subset=200,
)


def origins(**changes) -> set[int]:
    return set(replace(DIGITS, **changes).splits().train.origin.tolist())


@pytest.mark.parametrize("val_fraction", [0.0, 0.25])
def test_fractions_are_nested(val_fraction):
    nested = [origins(fraction=f, val_fraction=val_fraction) for f in (0.02, 0.1, 0.3, 0.31, 0.7, 1.0)]
    assert all(small < large for small, large in pairwise(nested))


@pytest.mark.parametrize("fraction", [0.02, 0.08, 0.3, 0.7])
@pytest.mark.parametrize("val_fraction", [0.1, 0.3])
def test_a_share_in_the_order_of_the_source_is_nested_with_that_without_a_validation_split(fraction, val_fraction):
    cut = replace(DIGITS, val_fraction=val_fraction, fraction=fraction, fraction_order="source").splits()
    whole, labels = origins(fraction=fraction), DIGITS.splits().train.labels
    assert origins(fraction=fraction, fraction_order="source") == whole  # without a validation split, the same draw
    held, own = set(cut.val.origin.tolist()), set(cut.train.origin.tolist())
    assert held == set(replace(DIGITS, val_fraction=val_fraction).splits().val.origin.tolist())
    for label in range(10):
        ours, theirs = ({i for i in of if labels[i] == label} for of in (own, whole - held))
        assert ours <= theirs or theirs <= ours
    assert len(own) == round(fraction * (1000 - len(held)))
    default = origins(fraction=fraction, val_fraction=val_fraction)
    assert len(default & whole) < len(own & whole)


def test_shares_in_the_order_of_the_source_are_nested_and_balanced():
    pool = replace(DIGITS, val_fraction=0.25).splits().train.labels.bincount()
    shares = [replace(DIGITS, val_fraction=0.25, fraction=f, fraction_order="source") for f in (0.05, 0.2, 0.6, 1.0)]
    found = [share.splits().train for share in shares]
    for small, large in pairwise(found):
        assert set(small.origin.tolist()) < set(large.origin.tolist())
    for share, data in zip(shares, found, strict=True):
        assert bool(((data.labels.bincount() - share.fraction * pool).abs() < 1).all())


@pytest.mark.parametrize("fraction", [0.013, 0.1, 0.25, 0.5, 0.999, 1.0])
def test_fractions_are_balanced_to_within_one_example(fraction):
    full, part = (replace(DIGITS, fraction=f).splits().train.labels.bincount(minlength=10) for f in (1.0, fraction))
    assert bool(((part - full * fraction).abs() < 1).all())
    assert int(part.sum()) == round(1000 * fraction)


def test_a_fraction_that_names_whole_examples_is_exact():
    labels = torch.arange(100).repeat(500)
    for fraction, count in ((0.1, 50), (0.3, 150), (0.01, 5), (0.002, 1)):
        assert bool((labels[stratified(labels, fraction, 3, "fraction")].bincount() == count).all())


def test_another_fraction_seed_gives_another_share():
    one, two = origins(fraction=0.3), origins(fraction=0.3, fraction_seed=1)
    assert len(one) == len(two) and 0.1 < len(one & two) / len(one) < 0.5


def test_subsets_keep_the_order_and_are_numbered_anew():
    train = replace(DIGITS, fraction=0.2).splits().train
    whole = DIGITS.splits().train
    assert bool((train.origin.diff() > 0).all()) and train.pool == len(whole) == 1000
    assert torch.equal(train.images, whole.images[train.origin])
    assert torch.equal(train.labels, whole.labels[train.origin])


def test_validation_is_cut_from_train_before_the_fraction_and_test_is_untouched():
    plain = DIGITS.splits()
    for fraction in (1.0, 0.2):
        splits = replace(DIGITS, val_fraction=0.2, fraction=fraction).splits()
        assert not set(splits.val.origin.tolist()) & set(splits.train.origin.tolist())
        assert torch.equal(splits.test.images, plain.test.images)
        # the validation split does not depend on the fraction
        assert len(splits.val) == 200
        assert len(splits.train) == fraction * 800
    counts, full = splits.val.labels.bincount(), plain.train.labels.bincount()
    assert bool(((counts - 0.2 * full).abs() < 1).all())


def test_train_subset_is_a_balanced_part_of_what_is_learned_from():
    splits = replace(DIGITS, fraction=0.5, train_subset=101).splits()
    assert len(splits.train_subset) == 101
    assert set(splits.train_subset.origin.tolist()) <= set(splits.train.origin.tolist())
    counts = splits.train_subset.labels.bincount()
    assert int(counts.max() - counts.min()) <= 1
    assert len(replace(DIGITS, fraction=0.1, train_subset=5000).splits().train_subset) == 100


def test_balanced_fills_up_where_a_class_runs_out():
    labels = torch.tensor([0] * 3 + [1] * 50 + [2] * 50)
    assert labels[balanced(labels, 43, 0, "x")].bincount().tolist() == [3, 20, 20]


def test_the_digits_split_is_disjoint_and_stratified():
    splits = DIGITS.splits()
    assert (len(splits.train), len(splits.test)) == (1000, 797)
    both = splits.train.labels.bincount() + splits.test.labels.bincount()
    assert bool(((splits.train.labels.bincount() - both * 1000 / 1797).abs() <= 1).all())
    pixels = torch.cat([splits.train.images, splits.test.images]).flatten(1).sum(1)
    # the published sum over all 1797 images
    assert int(pixels.sum()) == 561718
    assert splits.spec.num_examples == 1000


def test_the_digits_statistics_in_the_config_are_those_of_the_training_images():
    x = DIGITS.splits().train.images.double() / 16
    assert float(x.mean()) == pytest.approx(0.3042, abs=5e-5)
    assert float(x.std(correction=0)) == pytest.approx(0.3757, abs=5e-5)


def test_synthetic_is_learnable_and_the_same_everywhere():
    splits = synthetic(train_size=500, test_size=100).splits()
    means = torch.stack([splits.train.images[splits.train.labels == c].float().mean(0) for c in range(5)])
    nearest = (splits.test.images.float()[:, None] - means).flatten(2).norm(dim=2).argmin(1)
    assert bool((nearest == splits.test.labels).all())
    assert torch.equal(splits.train.images, synthetic(train_size=500).splits().train.images)


def test_a_fraction_that_empties_a_class_is_refused():
    with pytest.raises(DataError, match=r"fraction of 0\.001 leaves 9 classes without an example.*surely enough"):
        replace(DIGITS, fraction=0.001).splits()
    with pytest.raises(DataError, match=r"val_fraction of 0\.999 leaves a class without a training example"):
        replace(DIGITS, val_fraction=0.999).splits()


def test_facts_that_differ_from_the_data_are_refused():
    with pytest.raises(DataError, match=r"label 9, outside 0\.\.7"):
        replace(DIGITS, num_classes=8).splits()
    with pytest.raises(DataError, match=r"shape \[1, 8, 8\], but the configuration says \[1, 28, 28\]"):
        replace(DIGITS, input_shape=(1, 28, 28)).splits()
    with pytest.raises(DataError, match="one number for each of the 1 channels"):
        replace(DIGITS, mean=(0.1, 0.2, 0.3)).splits()
    with pytest.raises(DataError, match="3 images but 2 labels"):
        TensorSet(torch.zeros(3, 8, 8, 1, dtype=torch.uint8), torch.zeros(2, dtype=torch.long), 16)
