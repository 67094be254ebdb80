"""View numbers: equal numbers mean equal pixels, and there are `num_views` of them."""

from dataclasses import replace

import pytest
import torch
from test_loaders import STANDARD, STRONG, synthetic

from kdx.core.batch import Batch
from kdx.data.loaders import EvalLoader, TrainLoader
from kdx.data.views.augment import PLAIN, MultiView
from kdx.data.views.crop import PadCrop, ResizedCrop
from kdx.data.views.mixing import Mixing

SPLITS = synthetic(train_size=6, input_shape=(3, 8, 8)).splits()
RESIZED = replace(STANDARD, crop=ResizedCrop(scale=(0.2, 1.0), ratio=(0.75, 1.33)))


def batches(augmentation, epochs: int, splits=SPLITS, seed=0) -> list[Batch]:
    loader = TrainLoader(splits.train, splits.spec, augmentation, 4, seed, 0, False, True)
    return [batch for epoch in range(epochs) for batch in loader.epoch(epoch)]


def by_number(found: list[Batch]) -> dict[int, torch.Tensor]:
    """Pixels by view number. Fails if a number stands for two images."""
    table: dict[int, torch.Tensor] = {}
    for batch in found:
        assert batch.view is not None and batch.view.dtype == torch.int64
        for number, x in zip(batch.view.tolist(), batch.inputs, strict=True):
            assert torch.equal(table.setdefault(number, x), x)
    return table


@pytest.mark.parametrize(
    "augmentation, each",
    [
        (PLAIN, 1),
        (replace(PLAIN, flip=1.0), 1),
        (replace(PLAIN, flip=0.5), 2),
        (replace(PLAIN, crop=PadCrop(pad=1)), 9),
        (replace(STANDARD, crop=PadCrop(pad=1)), 18),
        (replace(STANDARD, crop=PadCrop(pad=1), cycle=2), 18),
    ],
)
def test_every_number_is_one_view_and_every_view_has_one(augmentation, each: int):
    assert augmentation.num_views == each
    seen = by_number(batches(augmentation, 200 if augmentation.cycle is None else 2))
    if augmentation.cycle is None:
        assert set(seen) == set(range(6 * each))
        assert len({x.numpy().tobytes() for x in seen.values()}) == 6 * each


def test_the_literatures_crop_and_flip_has_162_views():
    assert STANDARD.num_views == 162


@pytest.mark.parametrize("endless", [STRONG, RESIZED])
def test_what_is_endless_has_no_numbers_unless_it_comes_again(endless):
    assert endless.num_views is None
    assert all(batch.view is None for batch in batches(endless, 1))
    again = replace(endless, cycle=3)
    assert again.num_views == 3
    assert set(by_number(batches(again, 9))) == set(range(18))
    first, fourth = (by_number([b]) for b in (batches(again, 4)[i] for i in (0, 6)))
    assert all(torch.equal(x, first[n]) for n, x in fourth.items() if n in first)


def test_a_cycle_repeats_the_views_and_not_the_order():
    cycled, plain = batches(replace(STRONG, cycle=2), 4), batches(STRONG, 2)
    for a, b in zip(cycled, plain, strict=False):
        assert torch.equal(a.inputs, b.inputs)
    epochs = [[int(i) for batch in cycled[2 * e : 2 * e + 2] for i in batch.index] for e in range(4)]
    assert epochs[0] != epochs[2]
    pixels = [{int(i): x for b in cycled[2 * e : 2 * e + 2] for i, x in zip(b.index, b.inputs, strict=True)}
              for e in range(4)]  # fmt: skip
    assert all(torch.equal(pixels[0][i], pixels[2][i]) for i in range(6))
    assert not all(torch.equal(pixels[0][i], pixels[1][i]) for i in range(6))


def test_numbers_are_those_of_the_whole_source_whatever_part_is_in_use():
    whole = by_number(batches(STANDARD, 3, synthetic(train_size=60).splits()))
    for regime in ({"fraction": 0.5}, {"val_fraction": 0.3}, {"val_fraction": 0.3, "fraction": 0.4}):
        part = by_number(batches(STANDARD, 3, synthetic(train_size=60, **regime).splits()))
        assert 0 < len(part) < len(whole)
        assert all(torch.equal(x, whole[number]) for number, x in part.items())


def test_numbers_do_not_depend_on_the_data_seed():
    one, other = by_number(batches(PLAIN, 1)), by_number(batches(PLAIN, 1, seed=5))
    assert one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


def test_mixed_inputs_and_those_of_evaluation_have_no_numbers():
    mixing = Mixing(mixup_alpha=1.0, cutmix_alpha=0.0, prob=1.0, switch_prob=0.5, mode="batch", label_smoothing=0.0)
    assert all(batch.view is None for batch in batches(replace(STANDARD, mixing=mixing), 1))
    assert all(batch.view is None for batch in EvalLoader(SPLITS.train, SPLITS.spec, 4, 0, True))


def test_of_several_views_the_first_is_numbered():
    two = MultiView(crop=PadCrop(pad=1), flip=0.0, policy=None, mixing=None, cycle=None, further=[STRONG])
    by_number(batches(two, 30))
