"""Laws of the loader: all batches are a function of (data seed, epoch, index)."""

from dataclasses import replace

import pytest
import torch

from kdx.data.loaders import EvalLoader, TrainLoader, make_loaders
from kdx.data.sets import DataError
from kdx.data.sources.synthetic import Synthetic
from kdx.data.views.augment import PLAIN, Augmentation
from kdx.data.views.crop import PadCrop
from kdx.data.views.policy import Policy

STANDARD = Augmentation(crop=PadCrop(pad=4), flip=0.5, policy=None, mixing=None, cycle=None)
STRONG = replace(STANDARD, policy=Policy(ranges="narrow", num_ops=2, magnitude=9))


def synthetic(**changes) -> Synthetic:
    facts = dict(name="synthetic", num_classes=5, input_shape=(3, 16, 16), mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    regime = dict(fraction=1.0, fraction_seed=0, val_fraction=0.0, val_seed=0, train_subset=20)
    return Synthetic(**{**facts, **regime, "train_size": 103, "test_size": 41, "noise": 0.3, "seed": 0, **changes})


SPLITS = synthetic().splits()


def loader(augmentation=STANDARD, batch_size=16, seed=0, splits=SPLITS, drop_last=False) -> TrainLoader:
    return TrainLoader(splits.train, splits.spec, augmentation, batch_size, seed, 0, drop_last, True)


def by_index(batches) -> dict[int, torch.Tensor]:
    return {int(i): x for b in batches for i, x in zip(b.index, b.inputs, strict=True)}


def same(a, b) -> bool:
    fields = ("inputs", "labels", "index")
    return all(torch.equal(getattr(a, f), getattr(b, f)) for f in fields)


@pytest.mark.parametrize("augmentation", [PLAIN, STANDARD, STRONG])
def test_an_epoch_from_the_middle_is_the_tail_of_the_epoch(augmentation):
    whole = list(loader(augmentation).epoch(3))
    tail = list(loader(augmentation).epoch(3, start=4))
    assert len(tail) == len(whole) - 4
    assert all(map(same, whole[4:], tail))


def test_epochs_may_be_asked_for_in_any_order_and_interleaved():
    one = loader()
    first = list(one.epoch(0))
    pairs = list(zip(one.epoch(1), one.epoch(0), strict=True))
    assert all(map(same, first, (b for _, b in pairs)))
    assert all(map(same, loader().epoch(1), (a for a, _ in pairs)))


@pytest.mark.parametrize("epoch", [0, 1])
def test_every_example_comes_once(epoch):
    batches = list(loader().epoch(epoch))
    index = torch.cat([b.index for b in batches])
    assert torch.equal(index.sort().values, torch.arange(103))
    assert [len(b) for b in batches] == [16] * 6 + [7]
    assert torch.equal(torch.cat([b.labels for b in batches]), SPLITS.train.labels[index])


def test_orders_differ_between_epochs_and_seeds():
    orders = [torch.cat([b.index for b in loader(seed=s).epoch(e)]).tolist() for s, e in ((0, 0), (0, 1), (1, 0))]
    assert len({tuple(o) for o in orders}) == 3


def test_drop_last_leaves_out_the_short_batch():
    short = loader(drop_last=True)
    assert short.steps_per_epoch == 6 and [len(b) for b in short.epoch(0)] == [16] * 6
    with pytest.raises(DataError, match="batch_size of 200"):
        loader(batch_size=200, drop_last=True)


@pytest.mark.parametrize("augmentation", [STANDARD, STRONG])
def test_a_view_does_not_depend_on_the_batch_size(augmentation):
    small, large = (by_index(loader(augmentation, batch_size=b).epoch(2)) for b in (7, 64))
    assert all(torch.equal(small[i], large[i]) for i in range(103))


def test_a_view_does_not_depend_on_the_rest_of_the_regime():
    part = synthetic(fraction=0.4).splits()
    views, whole = by_index(loader(splits=part).epoch(1)), by_index(loader().epoch(1))
    assert 0 < len(views) < len(whole)
    assert all(torch.equal(x, whole[int(part.train.origin[i])]) for i, x in views.items())


def test_a_view_is_drawn_anew_each_epoch_and_for_each_sample():
    one = loader()
    first, second = by_index(one.epoch(0)), by_index(one.epoch(1))
    assert sum(torch.equal(first[i], second[i]) for i in range(103)) < 10
    draws = STANDARD.draw(2000, 0, 0)
    assert len(draws.crop.unique(dim=0)) == 81
    assert abs(float(draws.flip.float().mean()) - 0.5) < 0.05


def test_batches_are_channels_last_floats():
    batch = next(loader().epoch(0))
    assert batch.inputs.dtype == torch.float32 and batch.inputs.shape == (16, 3, 16, 16)
    assert batch.inputs.is_contiguous(memory_format=torch.channels_last)
    assert batch.labels.dtype == batch.index.dtype == torch.int64


def test_nothing_is_taken_from_the_global_stream():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    list(loader(STRONG).epoch(0))
    assert torch.equal(before, torch.get_rng_state())


def test_evaluation_is_in_order_and_exact():
    test = EvalLoader(SPLITS.test, SPLITS.spec, 16, 0, True)
    for _ in range(2):
        batches = list(test)
        assert len(batches) == len(test) == 3 and test.num_examples == 41
        assert torch.equal(torch.cat([b.index for b in batches]), torch.arange(41))
        inputs = torch.cat([b.inputs for b in batches]).double()
        mean, std = (torch.tensor(v, dtype=torch.float64).view(1, 3, 1, 1) for v in (SPLITS.spec.mean, SPLITS.spec.std))
        expected = (SPLITS.test.images.double().permute(0, 3, 1, 2) / 255 - mean) / std
        assert torch.allclose(inputs, expected, atol=1e-5, rtol=0)


def test_make_loaders_names_the_splits():
    splits = synthetic(val_fraction=0.2).splits()
    loaders = make_loaders(splits, STANDARD, 16, 32, data_seed=0, num_workers=2, drop_last=False, channels_last=True)
    assert set(loaders.evals) == {"test", "val", "train"}
    assert loaders.evals["train"].num_examples == 20
    assert loaders.spec.num_examples == loaders.train.num_examples == 103 - loaders.evals["val"].num_examples
    assert (
        "val"
        not in make_loaders(
            SPLITS, PLAIN, 16, 32, data_seed=0, num_workers=0, drop_last=False, channels_last=True
        ).evals
    )
