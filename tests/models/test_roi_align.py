"""RoIAlign by matrix products against torchvision's kernel."""

import pytest
import torch
from torch import Tensor

from kdx.models.detectors.roi_align import SMALL, is_small, places, pyramid_roi_align, roi_align_small


def given(seed: int, count: int = 40) -> tuple[Tensor, Tensor, Tensor]:
    """Maps at stride 8 of two images of 64 x 96, boxes, some over the border or below a cell, and their images."""
    g = torch.Generator().manual_seed(seed)
    maps = torch.randn(3, 5, 8, 12, dtype=torch.float64, generator=g)
    corner = torch.rand(count, 2, dtype=torch.float64, generator=g) * 110 - 15
    side = torch.rand(count, 2, dtype=torch.float64, generator=g) * 70
    side[:4] = torch.tensor([0.0, 0.5, 8.0, 200.0], dtype=torch.float64)[:, None]
    owner = torch.randint(0, 2, (count,), generator=g)  # the last image has no box
    return maps, torch.cat([corner, corner + side], 1), owner


@pytest.mark.parametrize("cells", [1, 3, 7])
@pytest.mark.parametrize("samples", [1, 2])
def test_values_and_gradients_are_torchvisions(cells: int, samples: int):
    from torchvision.ops import roi_align

    maps, boxes, owner = given(cells)
    maps.requires_grad_()
    rows = torch.cat([owner[:, None].double(), boxes], 1)
    ours, theirs = (
        roi_align_small(maps, boxes, owner, 1 / 8, cells, samples),
        roi_align(maps, rows, cells, 1 / 8, samples),
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
    weights = torch.randn(theirs.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    one, other = (torch.autograd.grad((x * weights).sum(), maps)[0] for x in (ours, theirs))
    torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
    assert float(one[2].abs().max()) == 0


def test_regions_come_from_the_level_of_their_size():
    from torchvision.ops import MultiScaleRoIAlign

    g = torch.Generator().manual_seed(0)
    size, names = (256, 512), ["fine", "coarse", "top"]
    levels = [torch.randn(2, 4, 256 // s, 512 // s, generator=g) for s in (8, 16, 32)]
    corner, side = torch.rand(60, 2, generator=g) * 100, torch.rand(60, 1, generator=g) * 600 + 1
    boxes, owner = torch.cat([corner, corner + side], 1), torch.randint(0, 2, (60,), generator=g)
    pool = MultiScaleRoIAlign(names, 3, 2)
    order = owner.argsort(stable=True)
    theirs = pool(dict(zip(names, levels, strict=True)), [boxes[owner == b] for b in (0, 1)], [size] * 2)
    ours = pyramid_roi_align(levels, boxes, owner, size, 3, 2)
    torch.testing.assert_close(ours[order], theirs, rtol=1e-4, atol=1e-5)
    # each level is read: without it some regions change
    for own in levels:
        without = [torch.zeros_like(x) if x is own else x for x in levels]
        assert not torch.equal(pyramid_roi_align(without, boxes, owner, size, 3, 2), ours)


def test_no_regions_give_no_maps():
    levels = [torch.randn(2, 4, 8, 8), torch.randn(2, 4, 4, 4)]
    none = torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)
    assert pyramid_roi_align(levels, *none, (64, 64), 3, 2).shape == (0, 4, 3, 3)
    assert roi_align_small(levels[0], *none, 1 / 8, 3, 2).shape == (0, 4, 3, 3)


def test_places_keep_the_order_of_an_images_regions():
    owner = torch.tensor([2, 0, 2, 2, 0])
    place, most = places(owner, 4)
    assert most == 3 and place.tolist() == [6, 0, 7, 8, 1]


def test_only_small_maps_take_the_products():
    assert is_small([torch.zeros(1, 1, 32, SMALL // 32)])
    assert not is_small([torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 33, SMALL // 32)])
