"""Domains of grey images: pixels, order, shares, and independence of the other domains."""

from dataclasses import replace

import pytest
import torch
from digit_domains import ALL, DIGITS, PHOTOS, photos_of

from kdx.data.sets import DataError
from kdx.data.sources.domains import DOMAIN, draw


def test_each_domain_is_drawn_from_the_same_images_in_order():
    train, test = ALL.load()
    grey, grey_test = DIGITS.load()
    assert len(train) == 3 * len(grey) and len(test) == 3 * len(grey_test)
    assert torch.equal(train.labels, grey.labels.repeat(3)) and train.scale == 255
    assert train.targets[DOMAIN].tolist() == [0] * 1000 + [1] * 1000 + [2] * 1000
    ink = grey.images.double() / 16
    first, colour, _ = (part.double() / 255 for part in train.images.split(1000))
    assert (first - ink).abs().max() <= 0.5 / 255 + 1e-9
    # a pixel of the coloured image is white in proportion to its ink, the rest is the background
    background = colour[0, 0, 0]
    assert ink[0, 0, 0] == 0 and (colour[0] - (ink[0] + (1 - ink[0]) * background)).abs().max() <= 1 / 255
    assert len({tuple(image[0, 0].tolist()) for image in colour}) > 900  # each has a colour of its own


def test_a_blended_image_is_the_difference_to_a_window_of_a_photograph():
    photos = PHOTOS.load()[0].images
    ink = torch.rand(5, 8, 8, 1)
    found = draw(ink, "blended", photos, torch.Generator().manual_seed(1))
    for image, of in zip(found, ink, strict=True):
        windows = [p[y : y + 8, x : x + 8] for p in photos for y in range(5) for x in range(4)]
        nearest = min(float(((w.float() / 255 - of).abs() * 255 - image).abs().max()) for w in windows)
        assert nearest <= 0.5 + 1e-4


def test_a_domain_has_the_same_pixels_beside_others_and_other_pixels_for_another_seed():
    colour = replace(ALL, domains=["colour"]).load()
    for split, whole in zip(colour, ALL.load(), strict=True):
        assert torch.equal(split.images, whole.images[len(split) : 2 * len(split)])
    other = replace(ALL, domains=["colour"], domain_seed=1).load()
    assert not torch.equal(colour[0].images, other[0].images)
    assert not torch.equal(colour[0].images[:797], colour[1].images)


def test_a_share_thins_the_training_images_of_its_domain_alone():
    data = replace(ALL, domains=["grey", "colour"], shares=[1.0, 0.1])
    train, test = data.load()
    assert train.targets[DOMAIN].bincount().tolist() == [1000, 100] and len(test) == 2 * 797
    counts = train.labels[1000:].bincount(minlength=10)
    assert int(counts.min()) >= 9 and int(counts.max()) <= 11
    whole = replace(ALL, domains=["colour"]).load()[0]
    rows = (whole.images[:, None, 0, 0] == train.images[None, 1000:, 0, 0]).all(2).any(1)
    assert int(rows.sum()) == 100  # they are images of the whole domain


def test_domains_that_cannot_be_drawn_are_refused():
    with pytest.raises(DataError, match="one or more different domains"):
        replace(ALL, domains=["grey", "grey"])
    with pytest.raises(DataError, match="a number for each of 3 domains"):
        replace(ALL, shares=[0.5])
    with pytest.raises(DataError, match="colour images of at least 8 x 8 pixels"):
        replace(ALL, photos=photos_of((3, 7, 9))).load()
    with pytest.raises(DataError, match="drawn from grey images, but synthetic has colours"):
        replace(ALL, source=PHOTOS, domains=["grey"]).load()
