import pytest
import torch

from kdx.losses.features.cwd import channel_divergence


def test_each_channel_is_a_distribution_so_a_constant_does_not_matter():
    mine, theirs = torch.randn(3, 4, 4, 4).double(), torch.randn(3, 4, 4, 4).double()
    shift = torch.randn(3, 4, 1, 1).double()
    torch.testing.assert_close(channel_divergence(mine + shift, theirs, 4.0), channel_divergence(mine, theirs, 4.0))


def test_a_hot_temperature_gives_the_squared_difference_of_centred_maps():
    mine, theirs = torch.randn(3, 4, 4, 4).double(), torch.randn(3, 4, 4, 4).double()
    gaps = (mine - theirs).flatten(2)
    expected = (gaps - gaps.mean(2, keepdim=True)).square().mean(2).mean(1) / 2
    torch.testing.assert_close(channel_divergence(mine, theirs, 1e4), expected, rtol=1e-3, atol=0)


def test_refuses_a_temperature_of_zero():
    with pytest.raises(ValueError, match="temperature must be above 0"):
        channel_divergence(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2), 0.0)
