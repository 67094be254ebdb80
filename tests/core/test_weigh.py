import pytest
import torch

from kdx.core.schedule import Linear, Progress
from kdx.core.weigh import weigh

HALF = Progress(5, 10, 10)


def test_the_sum_and_its_gradients():
    a, b = torch.tensor(2.0, requires_grad=True), torch.tensor(3.0, requires_grad=True)
    total = weigh({"a": a, "b": b}, {"b": Linear(0.0, 8.0, until=10), "a": 0.25}, HALF)
    total.backward()
    assert total.item() == 0.25 * 2 + 4 * 3
    assert (a.grad.item(), b.grad.item()) == (0.25, 4.0)


@pytest.mark.parametrize("terms, weights", [({"a", "b"}, {"a"}), ({"a"}, {"a", "b"}), ({"a"}, {"b"})])
def test_a_stray_name_raises(terms: set[str], weights: set[str]):
    with pytest.raises(KeyError, match="b"):
        weigh({t: torch.tensor(1.0) for t in terms}, dict.fromkeys(weights, 1.0), HALF)
