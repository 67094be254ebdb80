"""Mixing: labels match pixels, and the result is a function of (seed, epoch, step)."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_loaders import SPLITS, STANDARD, loader

from kdx.core.batch import Batch
from kdx.data.views.mixing import Mixing

MIXUP = Mixing(mixup_alpha=1.0, cutmix_alpha=0.0, prob=1.0, switch_prob=0.5, mode="batch", label_smoothing=0.0)
CUTMIX = replace(MIXUP, mixup_alpha=0.0, cutmix_alpha=1.0)
BOTH = replace(MIXUP, cutmix_alpha=1.0)
ALL = [replace(m, mode=mode) for m in (MIXUP, CUTMIX, BOTH) for mode in ("elem", "batch")]


def constant_images(count: int) -> Batch:
    # the pixel value of an image is its class
    labels = torch.arange(count)
    inputs = labels.float().view(-1, 1, 1, 1).expand(-1, 3, 16, 16).contiguous(memory_format=torch.channels_last)
    return Batch.of_classes(inputs, labels, labels)


@pytest.mark.parametrize("mixing", ALL)
@pytest.mark.parametrize("count", [1, 2, 7, 8])
def test_soft_labels_are_the_pixels_shares(mixing, count):
    for step in range(4):
        out = mixing.apply(constant_images(count), count, seed=0, epoch=0, step=step)
        assert torch.allclose(out.soft_labels.sum(1), torch.ones(count))
        # classes equal pixel values, so the mean pixel is the mean class under the soft label
        expected = out.soft_labels @ torch.arange(count).float()
        assert torch.allclose(out.inputs.mean((1, 2, 3)), expected, atol=1e-4)
        assert torch.equal(out.labels, out.soft_labels.argmax(1))
        assert torch.equal(out.index, torch.arange(count))
        if count % 2:
            assert torch.equal(out.inputs[-1], constant_images(count).inputs[-1])


@pytest.mark.parametrize("mixing", ALL)
def test_mixing_is_a_function_of_seed_epoch_and_step(mixing):
    augmentation = replace(STANDARD, mixing=mixing)
    whole, tail = (list(loader(augmentation).epoch(1, start=s)) for s in (0, 3))
    for a, b in zip(whole[3:], tail, strict=True):
        assert torch.equal(a.inputs, b.inputs) and torch.equal(a.soft_labels, b.soft_labels)
        assert torch.allclose(a.soft_labels.sum(1), torch.ones(len(a)))
    assert not torch.equal(whole[0].inputs, next(loader(augmentation).epoch(2)).inputs)


@pytest.mark.parametrize("mixing", ALL)
def test_other_seeds_epochs_and_steps_draw_other_ratios(mixing):
    """The shares of one and the same batch, so that its inputs have no part in it."""
    places = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 8)]

    def shares(seed: int, epoch: int, first: int) -> torch.Tensor:
        steps = range(first, first + 8)  # some batches may stay unmixed
        return torch.stack([mixing.apply(constant_images(8), 8, seed, epoch, step).soft_labels for step in steps])

    found = [shares(*place) for place in places]
    assert all(torch.equal(mixed, shares(*place)) for mixed, place in zip(found, places, strict=True))
    assert not any(torch.equal(found[i], found[j]) for i in range(4) for j in range(i))


def test_numpys_global_stream_is_put_back():
    np.random.seed(3)
    before = np.random.get_state()[1].copy()
    BOTH.apply(constant_images(8), 8, 0, 0, 0)
    assert (np.random.get_state()[1] == before).all()


def test_elem_mode_draws_for_each_sample_and_batch_mode_once():
    def shares(mode):
        out = replace(MIXUP, mode=mode).apply(constant_images(8), 8, 0, 0, 0)
        return {round(float(x), 4) for x in out.soft_labels.diagonal()}

    assert len(shares("batch")) == 1
    assert len(shares("elem")) == 8


def test_label_smoothing_spreads_evenly_also_on_an_unmixed_sample():
    out = replace(MIXUP, label_smoothing=0.1).apply(constant_images(5), 5, 0, 0, 0)
    assert torch.allclose(out.soft_labels[-1], torch.tensor([0.02, 0.02, 0.02, 0.02, 0.92]))


def test_prob_zero_leaves_the_batch():
    out = replace(MIXUP, prob=0.0).apply(constant_images(6), 6, 0, 0, 0)
    assert torch.equal(out.inputs, constant_images(6).inputs)
    assert torch.equal(out.soft_labels, torch.eye(6))


def test_mixing_of_nothing_is_reported():
    with pytest.raises(ValueError, match="set mixing to null"):
        replace(MIXUP, mixup_alpha=0.0)


def test_without_mixing_there_are_no_soft_labels():
    assert next(loader().epoch(0)).soft_labels is None
    assert len(SPLITS.train) == 103


@pytest.mark.parametrize("mixing", ALL)
def test_a_mixed_sample_has_a_label_where_both_of_its_pair_have_one(mixing):
    whole = mixing.apply(constant_images(7), 7, 0, 0, 0)
    out = mixing.apply(constant_images(7).with_targets(labels=torch.tensor([0, -1, 2, 3, 4, 5, 6])), 7, 0, 0, 0)
    unknown = torch.tensor([False, True, False, False, True, False, False])  # example 1, and its partner 4
    assert torch.equal(out.inputs, whole.inputs)
    assert torch.equal(out.labels[~unknown], whole.labels[~unknown]) and set(out.labels[unknown].tolist()) == {-1}
    assert torch.equal(out.soft_labels[~unknown], whole.soft_labels[~unknown]) and not out.soft_labels[unknown].any()
