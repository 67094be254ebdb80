"""Image files: decoding against torchvision, workers, memory, damage."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_loaders import STANDARD, STRONG, same

from kdx.data.loaders import make_loaders
from kdx.data.sets import DataError
from kdx.data.sources.folder import ImageFolder
from kdx.data.views.augment import Augmentation
from kdx.data.views.crop import ResizedCrop

RESIZED = Augmentation(
    crop=ResizedCrop(scale=(0.2, 1.0), ratio=(0.75, 1.33)), flip=0.5, policy=None, mixing=None, cycle=None
)


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    from PIL import Image

    rng = np.random.default_rng(0)
    root = tmp_path_factory.mktemp("root")
    for part, count in (("train", 11), ("val", 4)):
        for name in ("cat", "ant", "bee"):
            folder = root / "tiny" / part / name / "images"
            folder.mkdir(parents=True)
            for i in range(count):
                size = (rng.integers(20, 50), rng.integers(20, 50))
                shape = size if i == 3 else (*size, 3)
                Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(folder / f"{i:02}.JPEG")
    return root


def folder_at(root, **changes) -> ImageFolder:
    facts = dict(name="tiny", num_classes=3, input_shape=(3, 16, 16), mean=(0.5,) * 3, std=(0.25,) * 3)
    regime = dict(fraction=1.0, fraction_seed=0, val_fraction=0.0, val_seed=0, train_subset=6)
    source = dict(root=str(root), folder="tiny", test_folder="val", resize=20, in_memory=False)
    return ImageFolder(**{**facts, **regime, **source, **changes})


def loaders(dataset, augmentation=STANDARD, num_workers=0):
    return make_loaders(
        dataset.splits(), augmentation, 8, 5, data_seed=0, num_workers=num_workers, drop_last=False, channels_last=True
    )


def test_files_are_torchvisions_in_its_order(tree):
    from torchvision import transforms as T
    from torchvision.datasets import ImageFolder as Theirs

    theirs = Theirs(str(tree / "tiny" / "train"), T.Compose([T.Resize(20), T.CenterCrop(16), T.PILToTensor()]))
    ours = folder_at(tree).splits().train
    assert ours.labels.tolist() == theirs.targets
    images, rows = ours.rows(torch.arange(len(ours)))
    for i in range(len(theirs)):
        assert torch.equal(torch.from_numpy(images[rows[i]]).permute(2, 0, 1), theirs[i][0])


@pytest.mark.parametrize("augmentation", [STANDARD, STRONG, RESIZED])
def test_workers_change_nothing(tree, augmentation):
    alone, helped = (loaders(folder_at(tree, val_fraction=0.2), augmentation, n) for n in (0, 2))
    torch.manual_seed(0)
    before = torch.get_rng_state()
    for epoch, start in ((0, 0), (1, 2)):
        pairs = zip(alone.train.epoch(epoch, start), helped.train.epoch(epoch, start), strict=True)
        assert all(same(a, b) for a, b in pairs)
    for name in ("test", "val", "train"):
        assert all(same(a, b) for a, b in zip(alone.evals[name], helped.evals[name], strict=True))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("augmentation", [STANDARD, STRONG, RESIZED])
def test_in_memory_changes_nothing(tree, augmentation):
    regime = dict(fraction=0.5, val_fraction=0.2)
    files, memory = (loaders(folder_at(tree, in_memory=m, **regime), augmentation) for m in (False, True))
    for epoch in (0, 2):
        assert all(same(a, b) for a, b in zip(files.train.epoch(epoch), memory.train.epoch(epoch), strict=True))
    assert all(same(a, b) for a, b in zip(files.evals["test"], memory.evals["test"], strict=True))


def test_an_abandoned_epoch_does_not_disturb_the_next(tree):
    train = loaders(folder_at(tree), num_workers=2).train
    next(train.epoch(0))
    assert all(same(a, b) for a, b in zip(train.epoch(1), loaders(folder_at(tree)).train.epoch(1), strict=True))


def test_one_channel_is_read_as_grey(tree):
    splits = folder_at(tree, input_shape=(1, 16, 16), mean=(0.5,), std=(0.25,)).splits()
    images, _ = splits.test.rows(torch.arange(4))
    assert images.shape == (4, 16, 16, 1)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_damaged_image_is_named_in_one_sentence(tree, tmp_path, num_workers):
    import shutil

    shutil.copytree(tree / "tiny", tmp_path / "tiny")
    broken = tmp_path / "tiny" / "train" / "bee" / "images" / "05.JPEG"
    broken.write_bytes(broken.read_bytes()[:200])
    with pytest.raises(DataError, match=r"^cannot read the image .*bee/images/05\.JPEG: [^\n]*$"):
        list(loaders(folder_at(tmp_path), num_workers=num_workers).train.epoch(0))


def test_a_tree_that_differs_is_reported(tree, tmp_path):
    with pytest.raises(DataError, match=r"looked for .*nowhere.*KDX_DATA"):
        folder_at(tree, folder="nowhere").splits()
    with pytest.raises(DataError, match=r"looked for .*tiny/test"):
        folder_at(tree, test_folder="test").splits()
    with pytest.raises(DataError, match="has 3 classes, but num_classes is 4"):
        folder_at(tree, num_classes=4).splits()
    with pytest.raises(ValueError, match="resize must be at least the input size 16, got 8"):
        folder_at(tree, resize=8).splits()
    for part, name in (("train", "ant"), ("train", "bee"), ("val", "ant"), ("val", "bee")):
        (tmp_path / "tiny" / part / name).mkdir(parents=True)
    (tmp_path / "tiny" / "train" / "ant" / "a.png").touch()
    (tmp_path / "tiny" / "train" / "bee" / "notes.txt").touch()
    with pytest.raises(DataError, match="bee contains no images"):
        folder_at(tmp_path, num_classes=2).splits()
    (tmp_path / "tiny" / "val" / "bee").rename(tmp_path / "tiny" / "val" / "fly")
    with pytest.raises(DataError, match="classes that the training set lacks, such as 'fly'"):
        folder_at(tmp_path, num_classes=2).splits()


def test_facts_can_be_replaced(tree):
    assert replace(folder_at(tree), fraction=0.5).splits().spec.num_examples == 17  # of 33
