"""Each test draws from streams of its own, so that the order of tests does not matter."""

import random

import numpy as np
import pytest
import torch
from seeds import own_seed

DRAWN = torch.rand(3)


@pytest.fixture(scope="module")
def drawn_for_the_module() -> torch.Tensor:
    return torch.rand(3)


def expected(name: str) -> torch.Tensor:
    return torch.rand(3, generator=torch.Generator().manual_seed(own_seed(name)))


@pytest.mark.parametrize("time", [1, 2])
def test_a_test_has_streams_of_its_own(time: int, request: pytest.FixtureRequest):
    assert torch.equal(torch.rand(3), expected(request.node.nodeid))
    seed = own_seed(request.node.nodeid)
    assert np.random.rand() == np.random.RandomState(seed).rand()
    assert random.random() == random.Random(seed).random()


def test_a_module_has_one_for_its_import_and_its_fixtures(
    drawn_for_the_module: torch.Tensor, request: pytest.FixtureRequest
):
    module = request.node.parent.nodeid
    assert torch.equal(DRAWN, expected(module))
    assert torch.equal(drawn_for_the_module, expected(f"{module}::drawn_for_the_module"))
