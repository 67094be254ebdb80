import pytest
import torch

from kdx.losses.base.adapters import Norm
from kdx.losses.base.memory_format import channel_products, examples, positions


@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last])
def test_views_copy_nothing_and_hold_everything(form: torch.memory_format):
    maps = torch.randn(2, 3, 4, 5).contiguous(memory_format=form)
    assert positions(maps).data_ptr() == examples(maps).data_ptr() == maps.data_ptr()
    assert torch.equal(positions(maps), maps.flatten(2).transpose(1, 2))
    assert torch.equal(examples(maps).sort(1).values, maps.flatten(1).sort(1).values)


def test_gradients_come_back_in_the_format_of_the_maps():
    maps = torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last).requires_grad_()
    (gradient,) = torch.autograd.grad(examples(maps).square().mean(1).sum(), maps)
    assert gradient.is_contiguous(memory_format=torch.channels_last)


def test_a_single_value_is_normalised_by_the_running_statistics():
    norm, plain = Norm(3), torch.nn.BatchNorm2d(3)
    one, many = torch.randn(1, 3, 1, 1), torch.randn(4, 3, 2, 2)
    torch.testing.assert_close(norm(one), one / (1 + norm.eps) ** 0.5)
    torch.testing.assert_close(norm(many), plain(many))


def test_products_of_columns_and_their_gradient():
    matrices = torch.randn(2, 5, 3).double().requires_grad_()
    torch.testing.assert_close(channel_products(matrices), matrices.mT @ matrices)
    assert torch.autograd.gradcheck(channel_products, matrices)
