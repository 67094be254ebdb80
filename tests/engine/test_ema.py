import pytest
import torch
from torch import nn

from kdx.engine.optim.ema import Ema


def test_the_average_is_the_recursion_and_buffers_are_copied():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).train()
    ema, expected = Ema(net, 0.9), [p.detach().double() for p in net.parameters()]
    for _ in range(5):
        with torch.no_grad():
            for p in net.parameters():
                p.add_(torch.randn_like(p))
        net(torch.randn(4, 3))
        ema.update()
        expected = [0.9 * e + 0.1 * p.detach().double() for e, p in zip(expected, net.parameters(), strict=True)]
    for mine, e in zip(ema.model.parameters(), expected, strict=True):
        assert (
            mine.tolist() == pytest.approx(e.tolist(), rel=1e-5) if mine.ndim == 1 else torch.allclose(mine.double(), e)
        )
    assert torch.equal(ema.model[1].running_mean, net[1].running_mean)
    assert ema.model[1].num_batches_tracked == net[1].num_batches_tracked == 5
    assert not ema.model.training and not any(p.requires_grad for p in ema.model.parameters())
    other = Ema(net, 0.9)
    other.load_state_dict(ema.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(other.model.parameters(), ema.model.parameters(), strict=True))
