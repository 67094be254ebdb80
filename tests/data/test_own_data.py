"""A torch data set of (input, label) serves as a data set."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import TensorDataset

from kdx.data.loaders import make_loaders
from kdx.data.sets import DataError
from kdx.data.sources.own import Own, OwnLabels, OwnValues
from kdx.data.views.augment import PLAIN, Augmentation
from kdx.data.views.crop import PadCrop, ResizedCrop

G = torch.Generator().manual_seed(0)
FLOATS = torch.randn(12, 2, 4, 5, generator=G)
BYTES = torch.randint(256, (12, 2, 4, 5), generator=G, dtype=torch.uint8)
LABELS = torch.arange(12) % 3


class Pairs:
    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        return self.items[i]


COMMON = {
    **{"name": "mine", "input_shape": (2, 4, 5), "mean": [0.0] * 2, "std": [1.0] * 2},
    **{"fraction": 1.0, "fraction_seed": 0, "val_fraction": 0.0, "val_seed": 0, "train_subset": 6},
}


def own(train, test=None, in_memory=True, shape=(2, 4, 5), **changes):
    facts = {"mean": [0.25] * shape[0], "std": [2.0] * shape[0], "fraction": 1.0, "val_fraction": 0.0} | changes
    return Own(
        name="mine",
        num_classes=3,
        input_shape=shape,
        fraction_seed=0,
        val_seed=0,
        train_subset=6,
        train=lambda: train,
        test=lambda: train if test is None else test,
        in_memory=in_memory,
        **facts,
    )


def values(train, in_memory=True, **changes):
    facts = {"num_outputs": 2, "target_mean": [1.0, -2.0], "target_std": [0.5, 4.0]} | changes
    return OwnValues(**COMMON, **facts, train=lambda: train, test=lambda: train, in_memory=in_memory)


def labels(train, in_memory=True):
    return OwnLabels(**COMMON, num_classes=3, train=lambda: train, test=lambda: train, in_memory=in_memory)


@pytest.mark.parametrize("in_memory", [True, False])
def test_values_are_standardised_by_the_numbers_of_the_config(in_memory):
    raw = torch.randn(12, 2, generator=torch.Generator().manual_seed(1)).double()
    dataset = values(TensorDataset(FLOATS, raw), in_memory)
    assert dataset.task.kind == "values" and dataset.task.num_outputs == 2
    for batch in loaders(dataset).train.epoch(0):
        for row, index in zip(batch.target("values"), batch.index.tolist(), strict=True):
            a, b = raw[index].tolist()
            assert row.tolist() == pytest.approx([(a - 1) / 0.5, (b + 2) / 4], rel=1e-6)
    kept = dataset.task.kept_targets(next(iter(loaders(dataset).evals["test"])))["target"]
    torch.testing.assert_close(kept, raw[:5].float())


def test_a_single_value_may_be_a_number():
    items = [(image, 0.5 * i) for i, image in enumerate(FLOATS)]
    dataset = values(Pairs(items), num_outputs=1, target_mean=[0.0], target_std=[1.0])
    assert dataset.splits().test.targets["values"].flatten().tolist() == [0.5 * i for i in range(12)]


@pytest.mark.parametrize("in_memory", [True, False])
def test_labels_are_the_given_vectors(in_memory):
    given = (torch.arange(36).reshape(12, 3) % 2).bool()
    batches = list(loaders(labels(TensorDataset(FLOATS, given), in_memory)).evals["test"])
    assert torch.equal(torch.cat([b.target("presence") for b in batches]), given.float())


@pytest.mark.parametrize(
    "make, target, said",
    [
        (values, torch.zeros(3), r"must be 2 numbers \(num_outputs\), found the shape \[3\]"),
        (values, 0.5, r"must be 2 numbers \(num_outputs\), found the shape \[\]"),
        (values, torch.tensor([0.0, torch.nan]), "is not finite"),
        (values, "high", "must be a number or a vector of numbers, found 'high'"),
        (labels, torch.tensor([0.0, 2.0, 1.0]), "must be from 0 to 1 for each label, found 2"),
        (labels, torch.tensor([0.0, -0.5, 1.0]), "must be from 0 to 1 for each label, found -0.5"),
        (labels, 1, r"must be 3 numbers \(num_classes\)"),
    ],
)
@pytest.mark.parametrize("in_memory", [True, False])
def test_a_target_of_another_kind_is_refused_in_a_sentence(make, target, said, in_memory):
    with pytest.raises(DataError, match=f"a target of the training set of mine {said}"):
        make(Pairs([(FLOATS[0], target)] * 2), in_memory).splits()


def loaders(dataset, augmentation=PLAIN, num_workers=0):
    return make_loaders(dataset.splits(), augmentation, 5, 5, 0, num_workers, False, False)


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("inputs, scale", [(FLOATS, 1), (FLOATS.double(), 1), (BYTES, 255)])
def test_batches_hold_the_normalised_items(inputs, scale, in_memory):
    dataset = own(TensorDataset(inputs, LABELS), in_memory=in_memory)
    expected = (inputs.float() / scale - 0.25) / 2
    for _ in range(2):  # reading must not change the stored items
        batches = list(loaders(dataset).evals["test"])
        assert torch.equal(torch.cat([b.inputs for b in batches]), expected)
        assert torch.equal(torch.cat([b.labels for b in batches]), LABELS)
    for batch in loaders(dataset).train.epoch(1):
        assert torch.equal(batch.inputs, expected[batch.index])
        assert torch.equal(batch.labels, LABELS[batch.index])


def test_worker_processes_read_the_same():
    dataset = own(TensorDataset(FLOATS, LABELS), in_memory=False)
    alone, helped = (list(loaders(dataset, num_workers=n).train.epoch(0)) for n in (0, 1))
    assert all(torch.equal(a.inputs, b.inputs) for a, b in zip(alone, helped, strict=True))


@pytest.mark.parametrize("in_memory", [True, False])
def test_fraction_and_validation_split_are_parts_of_it(in_memory):
    dataset = own(TensorDataset(FLOATS, LABELS), in_memory=in_memory, fraction=0.5, val_fraction=0.25)
    splits = dataset.splits()
    assert splits.val is not None and not set(splits.val.origin.tolist()) & set(splits.train.origin.tolist())
    for part in (splits.train, splits.val):
        images, rows = part.rows(torch.arange(len(part)))
        assert np.array_equal(images[rows], FLOATS[part.origin].permute(0, 2, 3, 1).numpy())


def test_images_of_pillow_are_read_as_bytes():
    pixels = BYTES[:, 0].numpy()
    items = [(Image.fromarray(p), int(label)) for p, label in zip(pixels, LABELS, strict=True)]
    dataset = own(Pairs(items), shape=(1, 4, 5), mean=[0.0], std=[1.0])
    (first, *_) = loaders(dataset).evals["test"]
    assert torch.equal(first.inputs, BYTES[:5, :1].float() / 255)


def test_a_crop_and_a_flip_move_floats_as_they_are():
    dataset = own(TensorDataset(FLOATS, LABELS), mean=[0.0, 0.0], std=[1.0, 1.0])
    augmentation = Augmentation(crop=PadCrop(pad=1), flip=1.0, policy=None, mixing=None, cycle=None)
    for batch in loaders(dataset, augmentation).train.epoch(0):
        for image, index in zip(batch.inputs, batch.index.tolist(), strict=True):
            padded = torch.nn.functional.pad(FLOATS[index], (1, 1, 1, 1))
            windows = [padded[:, y : y + 4, x : x + 5].flip(2) for y in range(3) for x in range(3)]
            assert sum(torch.equal(image, w) for w in windows) == 1


def test_resizing_floats_is_refused():
    augmentation = Augmentation(
        crop=ResizedCrop(scale=[0.5, 1.0], ratio=[1.0, 1.0]), flip=0.0, policy=None, mixing=None, cycle=None
    )
    with pytest.raises(DataError, match="work on 8-bit images, and this data set gives float32"):
        loaders(own(TensorDataset(FLOATS, LABELS)), augmentation)


class Restless(Pairs):
    def __getitem__(self, i):
        return torch.rand(2, 4, 5), 0


@pytest.mark.parametrize(
    "source, said",
    [
        (Restless([0]), "another input each time item 0 is read"),
        (Pairs([]), "the training set of mine is empty"),
        (Pairs([(FLOATS[0], 0, 0)]), r"item 0 .* must be a pair \(input, target\)"),
        (Pairs([(FLOATS[0].flatten(), 0)]), r"must be a float or uint8 tensor \[C, H, W\], found torch.float32 \[40\]"),
        (Pairs([(FLOATS[0], 0.5)]), "must be a class index, found 0.5"),
        (Pairs([(FLOATS[0], 0), (FLOATS[0, :1], 1)]), "item 1 .* all inputs must be alike"),
        (Pairs([(FLOATS[0], 3)]), r"has the label 3, outside 0..2"),
        (iter([]), "must be a map-style data set"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(source, said):
    with pytest.raises(DataError, match=said):
        own(source).splits()


def test_training_and_test_set_must_be_of_one_kind():
    with pytest.raises(DataError, match="gives float32 inputs, its test set uint8"):
        own(TensorDataset(FLOATS, LABELS), TensorDataset(BYTES, LABELS)).splits()


class Relabelled(Pairs):
    """Its items have other labels than `targets`, as under torchvision's `target_transform`."""

    def __init__(self, items, target_transform=None):
        super().__init__(items)
        self.targets, self.target_transform, self.reads = [label for _, label in items], target_transform, 0

    def __getitem__(self, i):
        self.reads += 1
        pixels, label = self.items[i]
        return pixels, label if self.target_transform is None else self.target_transform(label)


@pytest.mark.parametrize("in_memory", [True, False])
def test_labels_are_those_of_the_items_not_of_the_attribute(in_memory: bool):
    items = list(zip(BYTES, LABELS.tolist(), strict=True))
    changed = Relabelled(items, lambda label: 2 - label)
    train = own(changed, in_memory=in_memory).splits().train
    assert train.labels.tolist() == [2 - label for label in LABELS.tolist()]

    plain = Relabelled(items)
    assert own(plain, in_memory=in_memory).splits().train.labels.tolist() == LABELS.tolist()
    if not in_memory:
        assert plain.reads < 2 * len(items)  # `targets` served, without a pass over the items
