"""Repeated augmentation: which examples an epoch shows, with which views."""

from collections import Counter
from dataclasses import replace

import pytest
import torch

from kdx.config.compose import compose
from kdx.config.identity import identity
from kdx.data.loaders import TrainLoader
from kdx.data.order import Mix, Repeated
from kdx.data.sets import DataError
from kdx.data.sources.synthetic import Synthetic
from kdx.data.views.augment import Augmentation
from kdx.data.views.crop import PadCrop

SHIFTS = Augmentation(crop=PadCrop(pad=6), flip=0.5, policy=None, mixing=None, cycle=None)
SPLITS = Synthetic(
    name="synthetic", num_classes=5, input_shape=(3, 16, 16), mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4),
    fraction=1.0, fraction_seed=0, val_fraction=0.0, val_seed=0, train_subset=20, train_size=50, test_size=10,
    noise=0.3, seed=0,
).splits()  # fmt: skip


def loader(repeats: int, batch_size: int = 8, mix: Mix | None = None) -> TrainLoader:
    views = replace(SHIFTS, repeats=repeats)
    return TrainLoader(SPLITS.train, SPLITS.spec, views, batch_size, 0, 0, False, True, mix)


@pytest.mark.parametrize(("size", "repeats"), [(9, 3), (10, 3), (7, 2)])
def test_an_epoch_has_as_many_positions_and_each_example_its_repeats(size: int, repeats: int):
    order = Repeated(size, repeats).draw(seed=1, epoch=0)
    counts = Counter(order.tolist())
    assert len(order) == len(Repeated(size, repeats)) == size
    assert sorted(counts.values(), reverse=True)[: size // repeats] == [repeats] * (size // repeats)
    assert sum(counts.values()) == size and len(counts) == -(-size // repeats)


def test_all_examples_are_shown_in_the_long_run():
    seen = torch.cat([Repeated(30, 3).draw(seed=0, epoch=epoch) for epoch in range(300)]).bincount(minlength=30)
    # 3 times a binomial number of 300 draws with probability 1/3: mean 300, standard deviation 24.5
    assert bool(((seen - 300).abs() < 110).all())


def test_the_first_repeat_has_the_plain_view_and_the_others_views_of_their_own():
    plain = {int(i): x for b in loader(1).epoch(2) for i, x in zip(b.index, b.inputs, strict=True)}
    views: dict[int, list[torch.Tensor]] = {}
    for batch in loader(3).epoch(2):
        for i, x in zip(batch.index, batch.inputs, strict=True):
            views.setdefault(int(i), []).append(x)
    assert all(torch.equal(of[0], plain[i]) for i, of in views.items())
    whole = [of for of in views.values() if len(of) == 3]
    # 13 x 13 crops and two sides: two equal views are rare
    assert sum(len({x.numpy().tobytes() for x in of}) == 3 for of in whole) >= len(whole) - 2


def test_labels_follow_and_an_epoch_from_the_middle_is_the_tail_of_the_epoch():
    whole = list(loader(3).epoch(1))
    for batch in whole:
        assert torch.equal(batch.labels, SPLITS.train.labels[batch.index]) and batch.view is None
    for a, b in zip(whole[3:], loader(3).epoch(1, start=3), strict=True):
        assert torch.equal(a.inputs, b.inputs) and torch.equal(a.index, b.index)


def test_two_kinds_of_examples_are_refused():
    with pytest.raises(DataError, match="augmentation.repeats"):
        loader(3, mix=Mix(torch.arange(50) < 10, 0.5))


def test_one_view_an_epoch_is_no_part_of_the_identity():
    def name(*overrides: str) -> str:
        return identity(compose(["dataset=digits", "augmentation=shift", *overrides]).config)

    assert name() == name("augmentation.repeats=1") != name("augmentation.repeats=2")
