"""Reading of data files: small, damaged and missing ones."""

import gzip
import hashlib
import os
import pickle
from dataclasses import fields

import numpy as np
import pytest
import torch

from kdx.data.sets import DataError
from kdx.data.sources import cifar, mnist
from kdx.data.sources.cifar import Cifar
from kdx.data.sources.mnist import Mnist

REGIME = dict(fraction=1.0, fraction_seed=0, val_fraction=0.0, val_seed=0, train_subset=10)


def cifar_at(root, **changes) -> Cifar:
    facts = dict(name="cifar100", num_classes=100, input_shape=(3, 32, 32), mean=(0.5,) * 3, std=(0.2,) * 3)
    return Cifar(**{**facts, **REGIME, "root": str(root), "download": False, "verify": False, **changes})


def mnist_at(root, **changes) -> Mnist:
    facts = dict(name="mnist", num_classes=10, input_shape=(1, 28, 28), mean=(0.1307,), std=(0.3081,))
    return Mnist(**{**facts, **REGIME, "root": str(root), "download": False, "verify": False, **changes})


def write_cifar(folder, name, seed, key="fine_labels", protocol=2) -> np.ndarray:
    folder.mkdir(exist_ok=True)
    data = np.random.default_rng(seed).integers(0, 256, (100, 3072), dtype=np.uint8)
    entry = {"data": data, key: [i % (100 if key == "fine_labels" else 10) for i in range(100)]}
    (folder / name).write_bytes(pickle.dumps(entry, protocol=protocol))
    return data


def write_idx(path, array, pack=False) -> None:
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
    path.write_bytes(gzip.compress(header + array.tobytes()) if pack else header + array.tobytes())


def write_mnist(root, pack=False):
    folder = root / "MNIST" / "raw"
    folder.mkdir(parents=True)
    images = np.random.default_rng(0).integers(0, 256, (20, 28, 28), dtype=np.uint8)
    labels = (np.arange(20) % 10).astype(np.uint8)
    for part in ("train", "t10k"):
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            write_idx(folder / f"{part}-{kind}-ubyte{'.gz' if pack else ''}", array, pack)
    return folder, images, labels


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_cifar100_is_read_channel_by_channel(tmp_path, protocol):
    folder = tmp_path / "cifar-100-python"
    data = write_cifar(folder, "train", 0, protocol=protocol)
    write_cifar(folder, "test", 1)
    splits = cifar_at(tmp_path).splits()
    # a row is 1024 bytes of red, then green, then blue
    assert torch.equal(splits.train.images.permute(0, 3, 1, 2).flatten(1), torch.from_numpy(data))
    assert torch.equal(splits.train.labels, torch.arange(100))
    assert splits.train.images.is_contiguous()


def test_cifar10_joins_its_five_batches(tmp_path):
    folder = tmp_path / "cifar-10-batches-py"
    parts = [write_cifar(folder, f"data_batch_{i}", i, "labels") for i in range(1, 6)]
    write_cifar(folder, "test_batch", 0, "labels")
    splits = cifar_at(tmp_path, name="cifar10", num_classes=10).splits()
    assert (len(splits.train), len(splits.test)) == (500, 100)
    assert torch.equal(splits.train.images[400:].permute(0, 3, 1, 2).flatten(1), torch.from_numpy(parts[4]))


def test_a_checksum_that_differs_is_reported_with_the_way_out(tmp_path, monkeypatch):
    folder = tmp_path / "cifar-100-python"
    write_cifar(folder, "train", 0)
    write_cifar(folder, "test", 1)
    with pytest.raises(DataError, match=r"train differs from the published file.*dataset\.verify=false"):
        cifar_at(tmp_path, verify=True).splits()
    for table, name in ((cifar.CIFAR100_TRAIN, "train"), (cifar.CIFAR100_TEST, "test")):
        monkeypatch.setitem(table, name, hashlib.md5((folder / name).read_bytes()).hexdigest())
    assert len(cifar_at(tmp_path, verify=True).splits().train) == 100


class Evil:
    def __reduce__(self):
        return (os.system, ("true",))


def test_a_pickle_that_wants_to_run_code_is_refused(tmp_path):
    folder = tmp_path / "cifar-100-python"
    write_cifar(folder, "train", 0)
    (folder / "train").write_bytes(pickle.dumps({"data": Evil(), "fine_labels": []}))
    with pytest.raises(DataError, match=r"train is not a file of cifar100: it refers to \w+\.system"):
        cifar_at(tmp_path).splits()


def test_missing_and_damaged_files_are_named(tmp_path):
    with pytest.raises(DataError, match=r"cifar-100-python; set dataset\.download=true.*KDX_DATA"):
        cifar_at(tmp_path).splits()
    folder = tmp_path / "cifar-100-python"
    write_cifar(folder, "train", 0)
    with pytest.raises(DataError, match=r"looked for .*cifar-100-python/test"):
        cifar_at(tmp_path).splits()
    (folder / "train").write_bytes((folder / "train").read_bytes()[:1000])
    with pytest.raises(DataError, match="cifar-100-python/train is damaged"):
        cifar_at(tmp_path).splits()
    with pytest.raises(DataError, match=r"MNIST/raw; set dataset\.download=true.*KDX_DATA"):
        mnist_at(tmp_path).splits()


@pytest.mark.parametrize("pack", [False, True])
def test_mnist_is_read_packed_or_not(tmp_path, pack):
    _, images, labels = write_mnist(tmp_path, pack)
    splits = mnist_at(tmp_path).splits()
    assert torch.equal(splits.train.images.squeeze(-1), torch.from_numpy(images))
    assert torch.equal(splits.test.labels, torch.from_numpy(labels).long())
    with pytest.raises(DataError, match=r"dataset\.verify=false"):
        mnist_at(tmp_path, verify=True).splits()


def test_damaged_idx_files_are_named(tmp_path):
    folder, images, _ = write_mnist(tmp_path)
    path = folder / "train-images-idx3-ubyte"
    for data in (path.read_bytes()[:-7], b"", b"\x00\x00\x08", b"not an idx file at all"):
        path.write_bytes(data)
        with pytest.raises(DataError, match="train-images-idx3-ubyte is damaged"):
            mnist_at(tmp_path).splits()
    path.unlink()
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte \(or .*gz\) not found"):
        mnist_at(tmp_path).splits()
    (folder / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(images.tobytes())[:500])
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz is damaged"):
        mnist_at(tmp_path).splits()


def test_checksums_are_of_the_four_files():
    assert len(mnist.MD5) == 4 and all(len(v) == 32 for v in mnist.MD5.values())
    from torchvision.datasets import CIFAR10, CIFAR100

    published = dict(CIFAR10.train_list + CIFAR10.test_list)
    assert published == {**cifar.CIFAR10_TRAIN, **cifar.CIFAR10_TEST}
    assert dict(CIFAR100.train_list + CIFAR100.test_list) == {**cifar.CIFAR100_TRAIN, **cifar.CIFAR100_TEST}


def test_no_knob_has_a_default_but_those_that_older_files_of_users_lack():
    from dataclasses import MISSING

    for kind in (Cifar, Mnist):
        optional = {f.name for f in fields(kind) if f.default is not MISSING or f.default_factory is not MISSING}
        assert optional == {"max_examples", "drop_duplicates", "label_noise", "label_noise_seed", "fraction_order"}
