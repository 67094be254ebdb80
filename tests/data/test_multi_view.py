"""Several views of each example have separate random streams; the first equals the single view."""

from dataclasses import replace

import pytest
import torch

from kdx.data.loaders import EvalLoader, TrainLoader
from kdx.data.sources.synthetic import Synthetic
from kdx.data.views.augment import Augmentation, MultiView
from kdx.data.views.crop import PadCrop
from kdx.data.views.mixing import Mixing
from kdx.data.views.policy import Policy

WEAK = Augmentation(crop=PadCrop(pad=4), flip=0.5, policy=None, mixing=None, cycle=None)
STRONG = replace(WEAK, policy=Policy(ranges="narrow", num_ops=2, magnitude=None))
TWO = MultiView(crop=PadCrop(pad=4), flip=0.5, policy=None, mixing=None, cycle=None, further=[STRONG])
SAME = replace(TWO, further=[WEAK, WEAK])
SPLITS = Synthetic(
    name="synthetic", num_classes=5, input_shape=(3, 16, 16), mean=(0.5,) * 3, std=(0.2,) * 3, fraction=1.0,
    fraction_seed=0, val_fraction=0.0, val_seed=0, train_subset=20, train_size=50, test_size=20, noise=0.3, seed=0,
).splits()  # fmt: skip


def loader(augmentation, batch_size=16) -> TrainLoader:
    return TrainLoader(SPLITS.train, SPLITS.spec, augmentation, batch_size, 0, 0, False, True)


def test_the_first_view_is_what_the_augmentation_makes_by_itself():
    for one, two in zip(loader(WEAK).epoch(2), loader(TWO).epoch(2), strict=True):
        assert torch.equal(one.inputs, two.inputs) and torch.equal(one.labels, two.labels)
        assert not one.views and len(two.views) == 1
        assert two.views[0].shape == two.inputs.shape and two.views[0].dtype == torch.float32
        assert two.views[0].is_contiguous(memory_format=torch.channels_last)


def test_views_are_drawn_apart():
    batch = next(loader(SAME).epoch(0))
    first, second, third = batch.inputs, *batch.views
    for a, b in ((first, second), (first, third), (second, third)):
        assert not any(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_views_show_the_same_examples():
    plain = Augmentation(crop=None, flip=0.0, policy=None, mixing=None, cycle=None)
    batch = next(loader(MultiView(crop=None, flip=0.0, policy=None, mixing=None, cycle=None, further=[plain])).epoch(0))
    assert torch.equal(batch.inputs, batch.views[0])
    assert batch.views[0].data_ptr() != batch.inputs.data_ptr()


def test_a_view_depends_on_neither_the_batch_size_nor_the_start():
    def by_index(batches) -> dict[int, torch.Tensor]:
        return {int(i): x for b in batches for i, x in zip(b.index, b.views[0], strict=True)}

    whole, other = by_index(loader(TWO).epoch(1)), by_index(loader(TWO, batch_size=7).epoch(1))
    assert whole.keys() == other.keys() and all(torch.equal(whole[i], other[i]) for i in whole)
    tail = by_index(loader(TWO).epoch(1, start=2))
    assert all(torch.equal(whole[i], x) for i, x in tail.items())
    assert not all(torch.equal(whole[i], x) for i, x in by_index(loader(TWO).epoch(0)).items())


def test_evaluation_sees_one_view():
    assert all(not b.views for b in EvalLoader(SPLITS.test, SPLITS.spec, 8, 0, True))


def test_mixing_and_no_further_view_are_refused():
    mixing = Mixing(mixup_alpha=1.0, cutmix_alpha=0.0, prob=1.0, switch_prob=0.5, mode="batch", label_smoothing=0.0)
    with pytest.raises(ValueError, match="cannot be combined with mixing"):
        replace(TWO, further=[replace(STRONG, mixing=mixing)])
    with pytest.raises(ValueError, match="cannot be combined with mixing"):
        replace(TWO, mixing=mixing)
    with pytest.raises(ValueError, match="at least one augmentation under further"):
        replace(TWO, further=[])
