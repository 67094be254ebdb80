"""Folders of images: each file once, nothing hidden, and all that is left out is counted."""

import os

import numpy as np
import pytest
import torch
from PIL import Image
from test_folder import folder_at

from kdx.data.sets import DataError
from kdx.data.sources.unlabelled_sources import Files
from kdx.data.sources.walk import Skipped, images_in


@pytest.fixture
def base(tmp_path):
    """Two classes of four images for training and one for the test."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 4), ("val", 1)):
        for name in ("ant", "bee"):
            folder = tmp_path / "tiny" / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                Image.fromarray(rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    return tmp_path / "tiny"


def names(base, **changes) -> list[str]:
    train, _ = folder_at(base.parent, **{"num_classes": 2, **changes}).load()
    return [os.path.relpath(path, base / "train") for path in train.source.paths]


PLAIN = [f"{name}/{i}.png" for name in ("ant", "bee") for i in range(4)]


def test_nothing_is_reported_where_nothing_is_skipped(base, capfd):
    assert names(base) == PLAIN
    assert capfd.readouterr().err == ""


def test_hidden_files_thumbnails_and_doubles_are_no_data(base, capfd):
    whole = (base / "train" / "ant" / "0.png").read_bytes()
    for place in (
        "ant/._0.png",
        "ant/.hidden.png",
        "bee/@eaDir/0.png/thumb.png",
        "bee/.ipynb_checkpoints/0-checkpoint.png",
    ):
        path = base / "train" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(whole)
    for folder in (".ipynb_checkpoints", "@eaDir", "__MACOSX"):
        (base / "train" / folder).mkdir()
        (base / "train" / folder / "a.png").write_bytes(whole)
    assert names(base) == PLAIN
    assert capfd.readouterr().err == f"kdx: {base}/train: skipped 7 hidden files\n"


def test_other_types_and_loose_images_are_counted_aloud(base, capfd):
    for place in ("ant/a.heic", "ant/b.HEIC", "bee/c.avif", "bee/notes.txt", "loose.jpg"):
        (base / "train" / place).touch()
    assert names(base) == PLAIN
    said = "1 image outside the class folders, 2 .heic, 1 .avif, 1 .txt"
    assert capfd.readouterr().err == f"kdx: {base}/train: skipped {said}\n"


def test_a_link_adds_a_folder_once_and_loops_end(base, tmp_path, capfd):
    more = tmp_path / "more" / "deep"
    more.mkdir(parents=True)
    Image.new("RGB", (20, 20)).save(more / "x.png")
    train = base / "train"
    (train / "ant" / "loop").symlink_to("..")  # holds both classes
    (train / "ant" / "self").symlink_to(".")
    (train / "ant" / "other").symlink_to("../bee")  # images of another class
    (train / "ant" / "more").symlink_to(tmp_path / "more")
    (tmp_path / "more" / "back").symlink_to(train)
    (train / "bee" / "again").symlink_to(more)
    assert names(base) == sorted([*PLAIN, "ant/more/deep/x.png"])
    assert capfd.readouterr().err == f"kdx: {train}: skipped 5 links to folders visited before\n"


def test_a_file_belongs_to_the_class_where_it_lies_though_a_link_comes_first(base):
    (base / "train" / "bee" / "part").mkdir()
    os.rename(base / "train" / "bee" / "3.png", base / "train" / "bee" / "part" / "3.png")
    (base / "train" / "ant" / "link").symlink_to("../bee/part")
    assert names(base) == [*PLAIN[:-1], "bee/part/3.png"]


def test_links_to_files_and_class_folders_elsewhere_are_data(base, tmp_path):
    for name in ("ant", "bee"):
        os.rename(base / "train" / name, tmp_path / name)
        (base / "train" / name).symlink_to(tmp_path / name)
    os.rename(tmp_path / "ant" / "0.png", tmp_path / "elsewhere.png")
    (tmp_path / "ant" / "0.png").symlink_to(tmp_path / "elsewhere.png")
    assert names(base) == PLAIN


def test_classes_that_are_one_folder_or_lie_in_each_other_are_named(base):
    (base / "train" / "cat").symlink_to("bee")
    with pytest.raises(DataError, match=r"train/bee and .*train/cat are one folder"):
        names(base, num_classes=3)
    os.unlink(base / "train" / "cat")
    (base / "train" / "all").symlink_to(".")
    with pytest.raises(DataError, match=r"train/all contains .*train/ant; remove the link"):
        names(base, num_classes=3)


def test_an_empty_or_odd_class_is_named(base):
    (base / "train" / "thumbs").mkdir()
    (base / "train" / "thumbs" / "a.heic").touch()
    with pytest.raises(DataError, match="has 3 classes, but num_classes is 2; without images: thumbs"):
        names(base)
    with pytest.raises(DataError, match=r"train/thumbs contains no images .* 1 \.heic"):
        names(base, num_classes=3)


def test_what_is_no_file_is_named_before_training(base):
    os.mkfifo(base / "train" / "ant" / "pipe.png")
    with pytest.raises(DataError, match=r"ant/pipe\.png is a broken link, a pipe or a device"):
        names(base)
    os.unlink(base / "train" / "ant" / "pipe.png")
    (base / "train" / "bee" / "gone.jpg").symlink_to("nowhere.jpg")
    with pytest.raises(DataError, match=r"bee/gone\.jpg is a broken link"):
        names(base)


@pytest.mark.parametrize("given", ["train", "./train", "train/", "val/../train"])
def test_the_training_folder_is_no_test_folder(base, given):
    with pytest.raises(DataError, match="is the folder of the training set"):
        folder_at(base.parent, num_classes=2, test_folder=given).inputs  # noqa: B018


def test_a_link_to_the_training_folder_is_no_test_folder(base):
    (base / "test").symlink_to("train")
    with pytest.raises(DataError, match="is the folder of the training set"):
        names(base, test_folder="test")


def test_a_folder_of_unlabelled_images_follows_the_same_rules(base, tmp_path, capfd):
    home = folder_at(base.parent, num_classes=2, in_memory=True)
    pool = tmp_path / "pool"
    pool.mkdir()
    grey = np.arange(400, dtype=np.uint16).reshape(20, 20) * 128
    Image.fromarray(grey).save(pool / "wide.png")
    Image.fromarray((grey >> 8).astype(np.uint8)).save(pool / "narrow.png")
    (pool / "._wide.png").touch()
    (pool / "loop").symlink_to(".")
    (pool / "photo.heic").touch()
    found = Files(path=str(pool), sha256=None).take(home.load()[0], home)
    assert len(found) == 2 and torch.equal(found.images[0], found.images[1])
    said = "1 hidden file, 1 link to a folder visited before, 1 .heic"
    assert capfd.readouterr().err == f"kdx: {pool}: skipped {said}\n"


def test_a_folder_that_cannot_be_read_is_named(base, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match="cannot read the folder .*train/ant: Permission denied"):
        images_in([str(base / "train" / "ant")], Skipped())


def test_statistics_on_a_scale_to_255_are_refused_with_those_of_the_right_scale(base):
    imagenet = dict(mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))
    with pytest.raises(DataError, match=r"divided by 255: \[0\.4850,0\.4560,0\.4060\] and \[0\.2290,0\.2240,0\.2250\]"):
        folder_at(base.parent, **imagenet).inputs  # noqa: B018
    folder_at(base.parent, mean=(0.0,) * 3, std=(1.0,) * 3).inputs  # noqa: B018
