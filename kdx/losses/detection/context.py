"""FGD's global distillation: maps with the context of the whole image added."""

from torch import Tensor, nn

from kdx.losses.base.numerics import full_precision


class ContextBlock(nn.Module):
    """Adds to each cell of a map the same vector, computed from a learned weighted mean of all cells (GcBlock).

    The last layer starts at zero, so that the block starts as the identity.

    Args:
        channels: Channels of the map.

    References:
        Cao, Xu, Lin, Wei, Hu, "GCNet: Non-local Networks Meet Squeeze-Excitation Networks and Beyond", 2019.
        https://arxiv.org/abs/1904.11492

    Example:
        >>> maps = torch.randn(2, 4, 3, 3)
        >>> torch.equal(ContextBlock(4)(maps), maps)
        True
    """

    def __init__(self, channels: int):
        super().__init__()
        hidden = max(channels // 2, 1)
        self.place = nn.Conv2d(channels, 1, 1, bias=False)  # the softmax over positions cancels a bias
        self.add = nn.Sequential(
            nn.Linear(channels, hidden), nn.LayerNorm(hidden), nn.ReLU(), nn.Linear(hidden, channels)
        )
        last = self.add[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, maps: Tensor) -> Tensor:
        shares = self.place(maps).flatten(1).softmax(1)
        context = (maps.flatten(2) @ shares[..., None])[..., 0]
        return maps + self.add(context)[..., None, None]


@full_precision
def context_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared distance of two maps with context, [B, C, H, W] each, summed over their numbers, [B].

    Example:
        >>> context_distance(torch.ones(2, 1, 2, 2), torch.zeros(2, 1, 2, 2))
        tensor([4., 4.])
    """
    return (student - teacher).square().flatten(1).sum(1)
