"""Shards against the same images as files: pixels, labels, batches, order, damage, cached indexes."""

import gzip
import io
import os
import runpy
import sys
import tarfile
from collections import Counter
from functools import lru_cache
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_folder import RESIZED, folder_at, loaders, tree  # noqa: F401 - a fixture
from test_loaders import STANDARD, same

import kdx.data.sources.shard_index as shard_index
import kdx.data.sources.shards as shards
from kdx.data.order import GroupedShuffle
from kdx.data.sets import DataError, Nearby
from kdx.data.sources.concat import ConcatSet
from kdx.data.sources.shards import Shards
from kdx.data.sources.unlabelled_sources import Noise

SCRIPT = Path(__file__).parents[2] / "scripts" / "pack_shards.py"
CLASSES = ("ant", "bee", "cat")
Part = tuple[str, bytes]


def write(path: Path, parts: list[Part], **options) -> Path:
    """Write a tar of files in the given order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", **options) as tar:
        for name, content in parts:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def sample(key: str, image: bytes, label: object) -> list[Part]:
    return [(f"{key}.cls", str(label).encode()), (f"{key}.jpg", image)]


def pack(folder: Path, root: Path, per_shard: int) -> Path:
    """Pack a folder's images into shards, in folder order, with files in between that belong to no sample."""
    for part in ("train", "val"):
        files = [p for name in CLASSES for p in sorted((folder / "tiny" / part / name / "images").iterdir())]
        parts = [
            sample(f"images/{i:05}", p.read_bytes(), CLASSES.index(p.parents[1].name)) for i, p in enumerate(files)
        ]
        for number, start in enumerate(range(0, len(parts), per_shard)):
            inside = [("__meta__/made.txt", b"by hand"), ("README", b"no sample")]
            write(root / "tiny" / f"{part}-{number:03}.tar", [*inside, *chain(*parts[start : start + per_shard])])
    return root


@pytest.fixture(scope="module")
def packed(tree, tmp_path_factory) -> Path:  # noqa: F811
    """33 training images in 5 shards, 12 test images in 2."""
    return pack(tree, tmp_path_factory.mktemp("packed"), 7)


def shards_at(root: Path, **changes) -> Shards:
    facts = dict(name="tiny", num_classes=3, input_shape=(3, 16, 16), mean=(0.5,) * 3, std=(0.25,) * 3)
    regime = dict(fraction=1.0, fraction_seed=0, val_fraction=0.0, val_seed=0, train_subset=6)
    source = dict(root=str(root), folder="tiny", train="train-*.tar", test="val-{000..001}.tar", label="cls", resize=20)
    rest = dict(in_memory=False, at_once=None, index=str(root / "indexes"))
    return Shards(**{**facts, **regime, **source, **rest, **changes})


@pytest.mark.parametrize(
    ("augmentation", "num_workers", "regime"),
    [
        (STANDARD, 2, {}),
        (RESIZED, 2, dict(val_fraction=0.2, fraction=0.5)),
        (RESIZED, 0, {}),
        (STANDARD, 0, dict(val_fraction=0.2, in_memory=True)),
    ],
)
def test_batches_are_those_of_the_files(tree, packed, augmentation, num_workers, regime):  # noqa: F811
    files = loaders(folder_at(tree, **regime), augmentation)
    ours = loaders(shards_at(packed, **regime), augmentation, num_workers)
    assert ours.spec == files.spec and ours.num_views == files.num_views
    for epoch, start in ((0, 0), (1, 2)):
        pairs = list(zip(ours.train.epoch(epoch, start), files.train.epoch(epoch, start), strict=True))
        assert all(same(a, b) for a, b in pairs)
        assert all(a.view.equal(b.view) if ours.num_views else a.view is b.view is None for a, b in pairs)
    assert ours.evals.keys() == files.evals.keys()
    for name, split in ours.evals.items():
        assert all(same(a, b) for a, b in zip(split, files.evals[name], strict=True))


def test_one_channel_is_read_as_grey(tree, packed):  # noqa: F811
    grey = dict(input_shape=(1, 16, 16), mean=(0.5,), std=(0.25,))
    ours, theirs = (
        data.splits().test.rows(torch.arange(12))[0] for data in (shards_at(packed, **grey), folder_at(tree, **grey))
    )
    assert ours.shape == (12, 16, 16, 1) and np.array_equal(ours, theirs)


@pytest.mark.parametrize(("at_once", "num_workers"), [(None, 0), (None, 2), (1, 0), (2, 2), (9, 0)])
def test_each_epoch_has_every_example_once_and_resumes_anywhere(packed, at_once, num_workers):
    train = loaders(shards_at(packed, at_once=at_once, fraction=0.8), num_workers=num_workers).train
    epochs = [list(train.epoch(epoch)) for epoch in range(2)]
    for batches in epochs:
        assert sorted(torch.cat([b.index for b in batches]).tolist()) == list(range(26))
    assert not torch.equal(*(torch.cat([b.index for b in batches]) for batches in epochs))
    fresh = loaders(shards_at(packed, at_once=at_once, fraction=0.8)).train
    assert all(same(a, b) for a, b in zip(fresh.epoch(1, 3), epochs[1][3:], strict=True))


@pytest.mark.parametrize("at_once", [1, 2, 3, 5, 8])
def test_few_groups_are_in_hand_at_a_time_and_those_are_mixed(at_once):
    g = torch.Generator().manual_seed(0)
    group = torch.randint(5, (400,), generator=g) * 3  # group numbers with gaps, as in a subset
    order = GroupedShuffle(Nearby(group, at_once))
    drawn = order.draw(7, 0)
    assert torch.equal(drawn, order.draw(7, 0)) and sorted(drawn.tolist()) == list(range(400))
    sizes, left, hands = Counter(group.tolist()), group[drawn].tolist(), []
    while left:
        hand: set[int] = set()
        count = 0
        # the current groups are finished before the next ones start
        while len(hand) < min(at_once, 5 - sum(map(len, hands))) or count < sum(sizes[n] for n in hand):
            hand.add(left[count])
            count += 1
        assert sorted(left[:count]) == sorted(n for n in hand for _ in range(sizes[n]))
        if len(hand) > 1:
            assert left[:count] != sorted(left[:count], key=left.index)
        hands.append(frozenset(hand))
        left = left[count:]
    assert [len(hand) for hand in hands] == [at_once] * (5 // at_once) + [5 % at_once] * (5 % at_once > 0)
    others = [order.draw(*where) for where in ((7, 1), (8, 0))]
    assert not any(torch.equal(drawn, other) for other in others)
    for at in range(5):  # each group, and each example in it, comes first in some epoch
        assert any(int(group[order.draw(s, 0)[0]]) == 3 * at for s in range(60))


def test_the_order_of_few_shards_is_refused_where_others_are_mixed_in(packed):
    splits = shards_at(packed, at_once=2).splits()
    with pytest.raises(DataError, match="at_once=null"):
        ConcatSet((splits.train, Noise(kind="uniform", count=5, seed=0).take(splits.train, shards_at(packed))))
    with pytest.raises(DataError, match="at_once=null"):
        shards_at(packed, at_once=2, in_memory=True).splits()


def test_an_index_is_made_once_and_again_for_another_file(tree, tmp_path, monkeypatch, capsys):  # noqa: F811
    pack(tree, tmp_path, 7)
    made: list[str] = []
    build = shard_index.build
    monkeypatch.setattr(shards, "build", lambda path, *rest: made.append(path.name) or build(path, *rest))
    labels = shards_at(tmp_path).splits().train.labels
    assert len(made) == 7 and "5 of 5 shards of tiny" in capsys.readouterr().err
    again = shards_at(tmp_path).splits()
    assert len(made) == 7 and torch.equal(again.train.labels, labels) and capsys.readouterr().err == ""
    # the same size, another modification time
    changed, image = tmp_path / "tiny" / "train-001.tar", (tree / "tiny/train/ant/images/00.JPEG").read_bytes()
    write(changed, sample("only", image, 2))
    with open(changed, "ab") as file:
        file.truncate(1 << 16)
    stamp = changed.stat()
    assert Counter(shards_at(tmp_path).splits().train.labels[7:].tolist()) == Counter([2, *labels[14:].tolist()])
    write(changed, sample("only", image, 1))
    with open(changed, "ab") as file:
        file.truncate(1 << 16)
    os.utime(changed, ns=(stamp.st_atime_ns, stamp.st_mtime_ns + 1))
    assert changed.stat().st_size == stamp.st_size
    assert int(shards_at(tmp_path).splits().train.labels[7]) == 1
    assert made[7:] == ["train-001.tar"] * 2
    # a damaged index, and an index for another label file
    for kept in (tmp_path / "indexes").iterdir():
        content = bytearray(kept.read_bytes())
        content[len(content) // 2] ^= 0xFF
        kept.write_bytes(content if "train" in kept.name else content[:100])
    assert torch.equal(shards_at(tmp_path).splits().test.labels, again.test.labels)
    assert len(made) == 9 + 7
    with pytest.raises(DataError, match="one part 'id'"):
        shards_at(tmp_path, label="id").splits()
    assert not [kept for kept in (tmp_path / "indexes").iterdir() if kept.suffix != ".npz"]


def test_a_shard_that_changes_while_a_run_reads_it_is_reported(tree, tmp_path):  # noqa: F811
    pack(tree, tmp_path, 7)
    train = shards_at(tmp_path).splits().train
    write(tmp_path / "tiny" / "train-000.tar", [("other.jpg", b"")])
    with pytest.raises(DataError, match=r"^the shard .*train-000\.tar changed after [^\n]*$"):
        train.rows(torch.tensor([0]))
    assert train.rows(torch.tensor([8]))[0].shape == (1, 16, 16, 3)


def jpeg() -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (24, 30, 3), dtype=np.uint8)).save(file, "JPEG")
    return file.getvalue()


GOOD = jpeg()
WRONG = {
    r"sample 'b' .* needs one image and one part 'cls' with its class; it has: jpg": [
        *sample("a", GOOD, 0),
        ("b.jpg", GOOD),
    ],
    r"sample 'b' .* it has: cls, json": [*sample("a", GOOD, 0), ("b.cls", b"1"), ("b.json", b"{}")],
    r"sample 'a' .* it has: cls, jpg, png": [*sample("a", GOOD, 0), ("a.png", b"")],
    r"sample 'a' .* it has: cls": [("a.cls", b"0"), ("b.jpg", GOOD)],
    r"sample 'a' .* must be an integer from 0, got 'cat'": sample("a", GOOD, "cat"),
    r"the training set of tiny has the label 3, outside 0\.\.2": sample("a", GOOD, 3),
    r"must be an integer from 0, got '-1'": sample("a", GOOD, -1),
    r"must be an integer from 0, got '99999999999999999999'": sample("a", GOOD, 10**20 - 1),
    r"WebDataset format: a\.jpg: duplicate file name": [*sample("a", GOOD, 0), ("a.jpg", GOOD)],
    r"contains no sample": [("README", b"nothing")],
}


@pytest.mark.parametrize("told", WRONG)
def test_what_is_wrong_with_a_sample_is_reported_in_one_line(tmp_path, told):
    write(tmp_path / "tiny" / "train-0.tar", WRONG[told])
    write(tmp_path / "tiny" / "val-0.tar", sample("a", GOOD, 0))
    with pytest.raises(DataError, match=told) as error:
        shards_at(tmp_path, test="val-0.tar").splits()
    assert "\n" not in str(error.value)


def test_a_shard_that_was_cut_off_or_overwritten_is_refused_wherever(tmp_path):
    whole = write(tmp_path / "tiny" / "train-0.tar", sample("a", GOOD, 0) + sample("b", GOOD, 1)).read_bytes()
    write(tmp_path / "tiny" / "val-0.tar", sample("a", GOOD, 0))
    data, shard = shards_at(tmp_path, test="val-0.tar"), tmp_path / "tiny" / "train-0.tar"
    end = len(whole.rstrip(b"\0"))
    end += -end % 512
    for length in (0, 1, *range(512, end + 1, 512), *range(700, end, 999)):
        shard.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"^the shard [^\n]*train-0\.tar (is not a complete|is damaged)[^\n]*$"):
            data.splits()
    second = whole.index(b"b.cls")
    shard.write_bytes(whole[:second] + bytes(range(200)) + whole[second + 200 :])
    with pytest.raises(DataError, match=f"is damaged or truncated at byte {second}$"):
        data.splits()
    write(shard, sample("a", GOOD, 0), format=tarfile.PAX_FORMAT)
    shard.write_bytes(gzip.compress(shard.read_bytes()))
    with pytest.raises(DataError, match="is not a complete, uncompressed tar"):
        data.splits()


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_damaged_image_is_named_in_one_line(tmp_path, num_workers):
    write(tmp_path / "tiny" / "train-0.tar", sample("a", GOOD, 0) + sample("dir/b", GOOD[:200], 1))
    write(tmp_path / "tiny" / "val-0.tar", sample("a", GOOD, 0))
    with pytest.raises(DataError, match=r"^cannot read an image of the shard .*train-0\.tar, dir/b\.jpg: [^\n]*$"):
        list(loaders(shards_at(tmp_path, test="val-0.tar"), num_workers=num_workers).train.epoch(0))


def test_shards_that_are_not_there_are_reported(packed):
    for changes, told in (
        (dict(folder="nowhere"), "looked for .*nowhere.*KDX_DATA"),
        (dict(train="train-{000..005}.tar"), r"looked for .*train-005\.tar"),
        (dict(train="others-*.tar"), r"looked for .*others-\*\.tar"),
        (dict(test="val-{000..001.tar"), "dataset.test=.* is not a valid shard pattern"),
        (dict(test="{val-000,val-000}.tar"), "names a shard twice"),
        (dict(test="*-000.tar"), "is in both dataset.train and dataset.test"),
    ):
        with pytest.raises(DataError, match=told) as error:
            shards_at(packed, **changes).splits()
        assert "\n" not in str(error.value)


def test_without_the_library_the_extra_is_named(packed, monkeypatch):
    monkeypatch.setattr("kdx.data.sources.shards.find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"pip install 'kdx\[shards\]'"):
        shards_at(packed).splits()


def test_few_files_are_open_at_a_time(packed, monkeypatch):
    before = set(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(shards, "_open", lru_cache(2)(shards._open.__wrapped__))
    train = shards_at(packed).splits().train
    images, _ = train.rows(torch.arange(33).flip(0))
    assert len(set(os.listdir("/proc/self/fd")) - before) <= 2
    assert np.array_equal(images[::-1], shards_at(packed, in_memory=True).splits().train.rows(torch.arange(33))[0])


def test_a_packed_folder_holds_its_images_with_their_classes(tree, tmp_path, monkeypatch):  # noqa: F811
    for part in ("train", "val"):
        options = ["--per-shard", "8", "--seed", "3"]
        where = [str(tree / "tiny" / part), str(tmp_path / "tiny" / f"{part}-%03d.tar")]
        monkeypatch.setattr(sys, "argv", ["pack_shards.py", *where, *options])
        runpy.run_path(str(SCRIPT), run_name="__main__")
    data = shards_at(tmp_path, train="train-{000..004}.tar").splits().train  # of 33 images
    ours, theirs = (
        [
            (int(label), image.tobytes())
            for label, image in zip(part.labels, part.rows(torch.arange(33))[0], strict=True)
        ]
        for part in (data, folder_at(tree).splits().train)
    )
    assert sorted(ours) == sorted(theirs) and ours != theirs


def test_sixteen_bits_and_hidden_members_are_read_as_from_a_folder(tmp_path, capfd):
    def png(values) -> bytes:
        file = io.BytesIO()
        Image.fromarray(values).save(file, "PNG")
        return file.getvalue()

    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    parts = [("0.cls", b"0"), ("0.png", png(grey)), ("._1.png", b"a double"), (".thumbs/1.png", b"a thumbnail")]
    parts += [("1.cls", b"1"), ("1.png", png(grey.astype(np.uint16) * 257)), ("./2.cls", b"2"), ("./2.png", png(grey))]
    for name in ("train-000.tar", "val-000.tar", "val-001.tar"):
        write(tmp_path / "tiny" / name, parts)
    train = shards_at(tmp_path, resize=16).splits().train
    images, _ = train.rows(torch.arange(3))
    assert train.labels.tolist() == [0, 1, 2]
    assert all(np.array_equal(image, np.repeat(grey[..., None], 3, 2)) for image in images)
    assert f"{tmp_path}/tiny/train-000.tar: skipped 2 hidden files" in capfd.readouterr().err
