"""Every kind of data file x 20 damages: the same data, or an error in one line that names the file."""

import hashlib
import pickle
import struct

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from test_folder import folder_at, tree  # noqa: F401 - a fixture
from test_shards import pack, shards_at

from kdx.core.errors import UserError
from kdx.data.sources import cifar, mnist
from kdx.data.sources.unlabelled_sources import Files
from kdx.models.teachers.memo_table import MemoTable
from kdx.runs.reuse.record import recorded, write

FACTS = dict(num_classes=10, fraction=1.0, fraction_seed=0, val_fraction=0.0, val_seed=0, train_subset=6)


def damages(content: bytes, seed: int) -> list[bytes]:
    """20 damaged versions of a file: emptied, cut, extended, overwritten, with bits flipped or bytes removed."""
    rng = np.random.default_rng(seed)
    size, found = len(content), [b"", b"\0" * len(content), content[:1], content[:-1], content[: len(content) // 2]]
    for place in (0, 1, 8, *rng.integers(0, size, 7)):
        flipped = bytearray(content)
        flipped[min(int(place), size - 1)] ^= 1 << int(rng.integers(8))
        found.append(bytes(flipped))
    for place in rng.integers(0, size, 4).tolist():
        found += [content[:place] + content[place + 5 :], content[:place] + rng.bytes(9) + content[place + 9 :]]
    return found[:20]


def check(path, read, same, seed: int = 0) -> tuple[int, int]:
    """Damage a file 20 times; the numbers of refusals and of reads that gave the same data."""
    content, right, refused, kept = path.read_bytes(), read(), 0, 0
    for number, damaged in enumerate(damages(content, seed)):
        if damaged == content:
            continue
        path.write_bytes(damaged)
        try:
            found = read()
        except UserError as error:
            assert path.name in str(error) and "\n" not in str(error) and len(str(error)) < 500, str(error)
            refused += 1
        else:
            assert same(found, right), f"damage {number} of {path.name} changed the data in silence"
            kept += 1
    path.write_bytes(content)
    return refused, kept


def equal(one, other) -> bool:
    return all(
        torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels) for a, b in zip(one, other, strict=True)
    )


@pytest.mark.slow
def test_cifar(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    tables = {"CIFAR10_TRAIN": {}, "CIFAR10_TEST": {}}
    for table, name in (("CIFAR10_TRAIN", "data_batch_1"), ("CIFAR10_TEST", "test_batch")):
        entry = {"data": rng.integers(0, 256, (4, 3072), dtype=np.uint8), "labels": [0, 1, 2, 3]}
        (folder / name).write_bytes(pickle.dumps(entry))
        tables[table][name] = hashlib.md5((folder / name).read_bytes()).hexdigest()
        monkeypatch.setattr(cifar, table, tables[table])
    stats = dict(input_shape=(3, 32, 32), mean=(0.5,) * 3, std=(0.2,) * 3)
    data = cifar.Cifar(name="cifar10", root=str(tmp_path), download=False, verify=True, **stats, **FACTS)
    assert check(folder / "data_batch_1", data.load, equal)[0] >= 19


@pytest.mark.slow
def test_mnist(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    sums = {}
    for part in ("train", "t10k"):
        images, labels = rng.integers(0, 256, (4, 28, 28), dtype=np.uint8), np.arange(4, dtype=np.uint8)
        for name, array in ((f"{part}-images-idx3-ubyte", images), (f"{part}-labels-idx1-ubyte", labels)):
            header = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
            (folder / name).write_bytes(header + array.tobytes())
            sums[name] = hashlib.md5((folder / name).read_bytes()).hexdigest()
    monkeypatch.setattr(mnist, "MD5", sums)
    stats = dict(input_shape=(1, 28, 28), mean=(0.5,), std=(0.2,))
    data = mnist.Mnist(name="mnist", root=str(tmp_path), download=False, verify=True, **stats, **FACTS)
    for name in sums:
        assert check(folder / name, data.load, equal)[0] >= 18


@pytest.mark.slow
def test_shards_and_their_indexes(tree, tmp_path):  # noqa: F811
    packed = pack(tree, tmp_path, 7)

    def read():
        return shards_at(packed, in_memory=True).load()

    read()
    (index,) = (tmp_path / "indexes").glob("train-000-*.npz")
    refused, kept = check(index, read, equal)
    assert refused == 0 and kept >= 19  # it is built again
    # a tar has checksums of its headers alone, so contents may change as Pillow reads them: names must stay
    shard = tmp_path / "tiny" / "train-000.tar"
    content, refused = shard.read_bytes(), 0
    for damaged in damages(content, 0):
        shard.write_bytes(damaged)
        try:
            read()
        except UserError as error:
            assert "\n" not in str(error) and ("train-000.tar" in str(error) or "label" in str(error)), str(error)
            refused += 1
    assert refused >= 5


@pytest.mark.slow
def test_a_file_of_unlabelled_images(tree, tmp_path):  # noqa: F811
    path = tmp_path / "images.safetensors"
    save_file({"images": torch.arange(2 * 16 * 16 * 3).remainder(256).to(torch.uint8).view(2, 16, 16, 3)}, path)
    home = folder_at(tree, in_memory=True)
    train = home.load()[0]
    # its contents have no checksum in the file: their SHA-256 is part of the run's identity
    shape = train.images.shape[1:]
    check(path, lambda: Files(path=str(path), sha256=None).take(train, home), lambda a, b: a.images.shape[1:] == shape)


@pytest.mark.slow
def test_a_memo(tmp_path):
    values = np.random.default_rng(0).standard_normal((6, 5), np.float32)
    rows = np.arange(6)
    MemoTable(tmp_path, 6, 5, "fp32").write(rows, values)

    def read():
        return MemoTable(tmp_path, 6, 5, "fp32").read(rows)

    def same(found, _) -> bool:
        kept, known = found
        return np.array_equal(kept[known], values[known])

    for name in ("values-00000.bin", "marks.bin"):
        assert check(tmp_path / name, read, same)[1] >= 19


@pytest.mark.slow
def test_the_record_of_data_and_code(tmp_path):
    write(tmp_path, {"files": {"dataset": {"folders": {"a": [1, 2, "x", "y"]}}}, "modules": {"mine": "z"}})
    right = recorded(tmp_path)
    assert right is not None
    check(tmp_path / "sources.json", lambda: recorded(tmp_path), lambda found, _: found in (None, right))
