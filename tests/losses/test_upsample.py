"""Results computed without the upsampled map equal those computed with it."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from kdx.losses.base.upsample import add_enlarged, convolve_enlarged


def parts(channels: int, large: tuple[int, int], small: tuple[int, int], depth: int) -> tuple[Tensor, Tensor, Tensor]:
    shapes = ((channels, large), (depth, small), (1, large))
    base, deeper, share = (torch.randn(2, c, *size).double().requires_grad_() for c, size in shapes)
    return base, deeper, share


@pytest.mark.parametrize("large", [(4, 6), (3, 5), (2, 3)])
def test_adding_an_enlargement_and_its_gradient(large: tuple[int, int]):
    base, deeper, share = parts(5, large, (2, 3), 5)
    expected = base + F.interpolate(deeper, large, mode="nearest") * share
    torch.testing.assert_close(add_enlarged(base, deeper, share), expected)
    assert torch.autograd.gradcheck(add_enlarged, (base, deeper, share))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("large", [(4, 6), (2, 6), (6, 3), (8, 9), (2, 3)])
def test_convolving_an_enlargement_and_its_gradient(large: tuple[int, int], layout: torch.memory_format):
    base, deeper, share = (x.detach().to(memory_format=layout).requires_grad_() for x in parts(4, large, (2, 3), 5))
    kernel = torch.randn(4, 5, 3, 3).double().requires_grad_()
    expected = base + F.conv2d(F.interpolate(deeper, large, mode="nearest") * share, kernel, padding=1)
    torch.testing.assert_close(convolve_enlarged(base, deeper, share, kernel), expected)
    assert torch.autograd.gradcheck(convolve_enlarged, (base, deeper, share, kernel))


def test_convolving_under_autocast_keeps_to_its_precision():
    base, deeper, share = (x.float() for x in parts(4, (4, 6), (2, 3), 5))
    kernel = torch.randn(4, 5, 3, 3)
    expected = base + F.conv2d(F.interpolate(deeper, (4, 6), mode="nearest") * share, kernel, padding=1)
    with torch.autocast("cpu", torch.bfloat16):
        found = convolve_enlarged(base, deeper, share, kernel)
    torch.testing.assert_close(found, expected, atol=0.1, rtol=0.05)
