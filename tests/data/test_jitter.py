"""Colour jitter against torchvision's functions and colorsys, crops and shifts against loops."""

import colorsys

import pytest
import torch
from torchvision.transforms.v2 import functional as tv

from kdx.data.sets import DataError
from kdx.data.views.jitter import ColorJitter, RandomCrop, RandomShift, jittered, turned

IMAGES = torch.rand(6, 3, 5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("part", range(4), ids=["brightness", "contrast", "saturation", "hue"])
def test_each_part_is_that_of_torchvision(part):
    change = (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation, tv.adjust_hue)[part]
    factors = torch.tensor([0.2, 0.7, 1.0, 1.1, 1.5, 1.9], dtype=torch.float64)
    factors = factors - 1 if part == 3 else factors
    factors = factors.clamp(-0.5, 0.5) if part == 3 else factors
    drawn = torch.tensor([[1.0, 1.0, 1.0, 0.0]], dtype=torch.float64).repeat(6, 1)
    drawn[:, part] = factors
    found = jittered(IMAGES, drawn)
    for image, factor, of in zip(IMAGES, factors.tolist(), found, strict=True):
        # its weights of grey have four digits
        assert (change(image, factor) - of).abs().max() < 1e-3


def test_the_hue_turns_as_in_colorsys():
    turns = torch.linspace(-0.5, 0.5, 6, dtype=torch.float64)
    found = turned(IMAGES, turns.view(-1, 1, 1, 1))
    for image, of, turn in zip(IMAGES, found, turns.tolist(), strict=True):
        for y in range(5):
            for x in range(4):
                h, s, v = colorsys.rgb_to_hsv(*image[:, y, x].tolist())
                assert of[:, y, x].tolist() == pytest.approx(colorsys.hsv_to_rgb((h + turn) % 1, s, v), abs=1e-9)
    grey = torch.rand(6, 1, 5, 4).expand(6, 3, 5, 4)
    assert torch.equal(turned(grey, turns.view(-1, 1, 1, 1).float()), grey)


def test_amounts_are_within_their_ranges_and_reach_both_ends():
    jitter = ColorJitter(brightness=0.4, contrast=0.3, saturation=0.2, hue=0.1)
    drawn = jitter.draw(4000, torch.Generator().manual_seed(0)) - torch.tensor([1.0, 1.0, 1.0, 0.0])
    reach = torch.tensor([0.4, 0.3, 0.2, 0.1])
    assert bool((drawn.abs() <= reach + 1e-6).all()) and bool((drawn.amax(0) > 0.99 * reach).all())
    assert bool((drawn.amin(0) < -0.99 * reach).all()) and bool((drawn.mean(0).abs() < 0.05 * reach).all())
    nothing = ColorJitter(brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0)
    pixels = (IMAGES * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
    assert torch.equal(nothing.apply(pixels, 255, nothing.draw(6, torch.Generator())), pixels)


def test_bytes_change_as_their_values_do():
    jitter = ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.2)
    pixels = (IMAGES * 255).round().to(torch.uint8)
    drawn = jitter.draw(6, torch.Generator().manual_seed(5))
    found = jitter.apply(pixels.permute(0, 2, 3, 1), 255, drawn).permute(0, 3, 1, 2)
    assert torch.equal(found, (jittered(pixels.float() / 255, drawn) * 255).round().to(torch.uint8))
    changed = jitter.change(IMAGES.float(), torch.Generator().manual_seed(5))
    assert torch.equal(changed, jittered(IMAGES.float(), drawn))
    with pytest.raises(DataError, match="changes colour images, and these have 1 channels"):
        jitter.apply(pixels[:, :1].permute(0, 2, 3, 1), 255, drawn)


def test_a_shift_moves_pixels_and_fills_with_black():
    found = RandomShift(pixels=2).change(IMAGES, torch.Generator().manual_seed(0))
    places = set()
    for image, of in zip(IMAGES, found, strict=True):
        for dy in range(-2, 3):
            for dx in range(-2, 3):
                moved = torch.zeros_like(image)
                for y in range(5):
                    for x in range(4):
                        if 0 <= y + dy < 5 and 0 <= x + dx < 4:
                            moved[:, y, x] = image[:, y + dy, x + dx]
                if torch.equal(moved, of):
                    places.add((dy, dx))
                    break
    assert len(places) > 2


def test_a_crop_of_the_whole_is_the_image_and_a_smaller_one_stays_within_its_values():
    assert torch.allclose(RandomCrop(scale=1.0).change(IMAGES, torch.Generator()), IMAGES)
    ramp = torch.arange(8.0).view(1, 1, 1, 8).expand(50, 1, 8, 8)
    found = RandomCrop(scale=0.5).change(ramp, torch.Generator().manual_seed(0))
    # four of eight columns, enlarged: half the slope
    assert torch.allclose(found[..., 2:6].diff(dim=3), torch.tensor(0.5))
    assert set(found[:, 0, 0, 0].tolist()) == {0.0, 1.0, 2.0, 3.0, 4.0}
