import pytest
import torch
from law_case import CLASSES, SPEC

from kdx.core.outputs import Shapes
from kdx.losses.features.ickd import ICKD, channel_correlation


@pytest.fixture(autouse=True)
def a_seed():
    torch.manual_seed(0)


def embedding(initial) -> torch.Tensor:
    term = ICKD("last", "last", initial)
    term.build(Shapes((CLASSES,), {"last": (100, 4, 4)}), Shapes((CLASSES,), {"last": (400, 4, 4)}), SPEC)
    return term.embed[0].weight.detach()


def test_the_embedding_starts_from_torchs_default_or_from_he():
    """Uniform within 1 / sqrt(inputs) for a 1 x 1 convolution of torch; normal over fan_out for He."""
    uniform, normal = embedding("torch"), embedding("he")
    assert uniform.abs().max() <= 0.1 and abs(uniform.std().item() - 0.1 / 3**0.5) < 0.001
    assert normal.abs().max() > 0.2 and abs(normal.std().item() - (2 / 400) ** 0.5) < 0.002


def test_refuses_another_initialisation():
    with pytest.raises(ValueError, match="initial must be 'he' or 'torch', got 'xavier'"):
        ICKD("last", "last", "xavier")  # pyright: ignore[reportArgumentType]


def test_the_order_of_positions_and_the_size_of_the_map_do_not_matter():
    mine, theirs = torch.randn(3, 4, 4, 4).double(), torch.randn(3, 4, 2, 2).double()
    order = torch.randperm(16)
    shuffled = mine.flatten(2)[:, :, order].view_as(mine)
    expected = channel_correlation(mine, theirs)
    torch.testing.assert_close(channel_correlation(shuffled, theirs), expected)
    torch.testing.assert_close(channel_correlation(3 * mine, theirs), expected)


def test_channels_that_never_fire_together():
    mine, theirs = torch.zeros(1, 2, 1, 2), torch.ones(1, 2, 1, 2)
    mine[0, 0, 0, 0] = mine[0, 1, 0, 1] = 1.0
    # rows (1, 0) and (0, 1) against (1, 1) / sqrt(2), twice
    expected = (1 - 0.5**0.5) ** 2 + 0.5
    assert abs(channel_correlation(mine, theirs).item() - expected) < 1e-6


def test_the_memory_format_does_not_matter():
    mine, theirs = torch.randn(3, 4, 4, 4).double(), torch.randn(3, 4, 2, 2).double()
    other = mine.to(memory_format=torch.channels_last)
    torch.testing.assert_close(channel_correlation(other, theirs), channel_correlation(mine, theirs))
