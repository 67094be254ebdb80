"""Augmentations against torchvision, for the same random draws."""

import numpy as np
import pytest
import torch
from test_loaders import STANDARD, STRONG, synthetic

from kdx.data.loaders import TrainLoader
from kdx.data.sets import DataError
from kdx.data.views.augment import Augmentation
from kdx.data.views.crop import PadCrop, ResizedCrop
from kdx.data.views.pixels import Normalize, mirror, windows

SPLITS = synthetic(train_size=60, input_shape=(3, 12, 18)).splits()


@pytest.mark.parametrize(
    "augmentation", [STANDARD, Augmentation(crop=PadCrop(pad=1), flip=0.0, policy=None, mixing=None, cycle=None)]
)
def test_standard_is_bitwise_torchvision(augmentation):
    from PIL import Image
    from torchvision.transforms import functional as F

    data, spec = SPLITS.train, SPLITS.spec
    draws = augmentation.draw(data.pool, 5, 2)
    pad = augmentation.crop.pad
    seen = 0
    for batch in TrainLoader(data, spec, augmentation, 16, 5, 0, False, True).epoch(2):
        for x, i in zip(batch.inputs, batch.index.tolist(), strict=True):
            image = F.pad(Image.fromarray(data.images[i].numpy()), [pad])
            top, left = draws.crop[i].tolist()
            image = F.crop(image, top, left, 12, 18)
            if draws.flip is not None and draws.flip[i]:
                image = F.hflip(image)
            expected = F.normalize(F.to_tensor(image), spec.mean, spec.std)
            assert torch.equal(x, expected)
            seen += 1
    assert seen == 60


@pytest.mark.parametrize("channels", [1, 3])
def test_windows_and_mirror_against_loops(channels):
    rng = np.random.default_rng(0)
    source = rng.integers(0, 256, (5, 6, 7, channels), dtype=np.uint8)
    rows, offsets, flips = rng.integers(0, 5, 9), rng.integers(0, 5, (9, 2)), rng.random(9) < 0.5
    out = windows(source, rows, offsets, 2)
    mirror(out, flips)
    for b in range(9):
        for y in range(6):
            for x in range(7):
                sy = y + offsets[b, 0] - 2
                sx = (6 - x if flips[b] else x) + offsets[b, 1] - 2
                inside = 0 <= sy < 6 and 0 <= sx < 7
                expected = source[rows[b], sy, sx] if inside else np.zeros(channels)
                assert (out[b, y, x] == expected).all()


def test_normalize_maps_the_scale_to_one():
    images = torch.tensor([0, 16], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 8, 8, 1).contiguous()
    out = Normalize((1, 8, 8), 16, (0.25,), (0.5,))(images)
    assert torch.equal(out, torch.tensor([-0.5, 1.5]).view(2, 1, 1, 1).expand(2, 1, 8, 8))


def test_augmenting_leaves_the_stored_images_alone():
    before = SPLITS.train.images.clone()
    for augmentation in (STANDARD, STRONG, Augmentation(crop=None, flip=1.0, policy=None, mixing=None, cycle=None)):
        list(TrainLoader(SPLITS.train, SPLITS.spec, augmentation, 16, 0, 0, False, True).epoch(0))
    assert torch.equal(before, SPLITS.train.images)


def test_each_part_draws_from_its_own_stream():
    both, flip = (
        Augmentation(crop=c, flip=0.5, policy=None, mixing=None, cycle=None).draw(50, 0, 0)
        for c in (PadCrop(pad=4), None)
    )
    assert torch.equal(both.flip, flip.flip)


def test_resized_crop_is_torchvisions_for_the_same_window():
    from PIL import Image
    from torchvision.transforms import functional as F

    crop = ResizedCrop(scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3))
    data = SPLITS.train
    drawn = crop.draw(data.pool, torch.Generator().manual_seed(0))
    views = crop.views(data, torch.arange(60), drawn)
    for i in range(60):
        window = crop.window(12, 18, int(drawn[i]))
        expected = F.resized_crop(Image.fromarray(data.images[i].numpy()), *window, [12, 18])
        assert (views[i] == np.asarray(expected)).all()


def test_resized_crop_windows_lie_inside_and_spread_as_asked():
    crop = ResizedCrop(scale=(0.2, 0.8), ratio=(0.5, 2.0))
    windows = [crop.window(100, 80, seed) for seed in range(2000)]
    assert all(t >= 0 and le >= 0 and t + h <= 100 and le + w <= 80 for t, le, h, w in windows)
    area = torch.tensor([h * w / 8000 for _, _, h, w in windows])
    aspect = torch.tensor([w / h for _, _, h, w in windows])
    assert 0.19 < float(area.min()) < 0.23 and 0.75 < float(area.max()) < 0.82
    assert float(aspect.min()) > 0.48 and float(aspect.max()) < 2.1
    # an impossible window: falls back to the largest central one with an allowed aspect ratio
    assert ResizedCrop(scale=(1.0, 1.0), ratio=(1.0, 1.0)).window(10, 30, 0) == (0, 10, 10, 10)


def test_wrong_numbers_are_reported():
    with pytest.raises(ValueError, match="scale must be two positive numbers"):
        ResizedCrop(scale=(0.5, 0.1), ratio=(1.0, 1.0))
    with pytest.raises(DataError, match="has 0..16"):
        STRONG.policy.apply(SPLITS.train.images, 16, STRONG.policy.draw(60, torch.Generator()))
