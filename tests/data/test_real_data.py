"""Published counts and statistics of the real data sets, if KDX_DATA provides them."""

import os
from pathlib import Path

import pytest
import torch
from test_folder import folder_at
from test_loaders import STANDARD
from test_sources import cifar_at, mnist_at

from kdx.data.content import digests, is_known, is_repeated
from kdx.data.loaders import make_loaders

ROOT = Path(os.environ.get("KDX_DATA", "/nowhere"))


def needs(folder: str):
    return pytest.mark.skipif(not (ROOT / folder).is_dir(), reason=f"no {folder} under KDX_DATA")


def statistics(images: torch.Tensor) -> tuple[list[float], list[float]]:
    x = images.flatten(0, 2)
    values = torch.arange(256, dtype=torch.float64) / 255
    share = torch.stack([x[:, c].bincount(minlength=256).double() / len(x) for c in range(x.shape[1])])
    mean = share @ values
    return mean.tolist(), (share @ values**2 - mean**2).sqrt().tolist()


@needs("cifar-100-python")
def test_cifar100_has_ten_test_images_in_its_training_set():
    train, test = cifar_at(ROOT).load()
    images, labels = (torch.cat([getattr(part, key) for part in (train, test)]) for key in ("images", "labels"))
    _, first = images.flatten(1).unique(dim=0, return_inverse=True)
    shared = [i for i in range(len(test)) if bool((first[: len(train)] == first[len(train) + i]).any())]
    assert is_known(digests(test), digests(train)).nonzero()[0].tolist() == shared and len(shared) == 10
    twins = [labels[: len(train)][first[: len(train)] == first[len(train) + i]][0] for i in shared]
    assert sum(int(twin != test.labels[i]) for twin, i in zip(twins, shared, strict=True)) == 6
    kept = cifar_at(ROOT, drop_duplicates=True).splits().train
    assert not is_known(digests(test), digests(kept)).any() and not is_repeated(digests(kept)).any()


@needs("cifar-100-python")
def test_cifar100():
    published = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)
    splits = cifar_at(ROOT, mean=published[0], std=published[1], fraction=0.1, val_fraction=0.1).splits()
    train, test = cifar_at(ROOT).load()
    assert (train.labels.bincount() == 500).all() and (test.labels.bincount() == 100).all()
    for ours, theirs in zip(statistics(train.images), published, strict=True):
        assert ours == pytest.approx(theirs, abs=2e-4)
    assert (splits.val.labels.bincount() == 50).all() and (splits.train.labels.bincount() == 45).all()
    loader = make_loaders(splits, STANDARD, 64, 500, 0, 0, False, True).evals["val"]
    inputs = torch.cat([b.inputs for b in loader])
    assert inputs.mean((0, 2, 3)).abs().max() < 0.05 and (inputs.std((0, 2, 3)) - 1).abs().max() < 0.05


@needs("MNIST/raw")
def test_mnist():
    train, test = mnist_at(ROOT, verify=True).load()
    assert train.labels.bincount().tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert test.labels.bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    mean, std = statistics(train.images)
    assert mean[0] == pytest.approx(0.1307, abs=5e-5) and std[0] == pytest.approx(0.3081, abs=5e-5)


@needs("tin25")
def test_tin25():
    dataset = folder_at(
        ROOT, folder="tin25", num_classes=25, input_shape=(3, 64, 64), resize=64, fraction=0.02, train_subset=50
    )
    train, test = dataset.load()
    assert (train.labels.bincount() == 500).all() and (test.labels.bincount() == 50).all()
    splits = dataset.splits()
    assert (splits.train.labels.bincount() == 10).all() and (splits.train_subset.labels.bincount() == 2).all()
    alone, helped = (make_loaders(splits, STANDARD, 64, 100, 0, n, False, True).train.epoch(0) for n in (0, 2))
    for a, b in zip(alone, helped, strict=True):
        assert torch.equal(a.inputs, b.inputs) and a.inputs.shape[1:] == (3, 64, 64)
