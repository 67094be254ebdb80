"""Streams by name: known answers, independence, and what a block leaves behind."""

import random

import numpy as np
import pytest
import torch

import kdx.data.numpy_stream  # noqa: F401 - registers NumPy's stream, which `draw` reads
from kdx.core.seed import derive, generator, get_rng_state, seed_all, seeded, set_rng_state


def draw() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), torch.rand(1).item()


# the first 8 bytes of `printf 0/augment/3 | sha256sum`, read backwards, without the last bit
@pytest.mark.parametrize(
    "seed, names, expected",
    [
        (0, ("augment", 3), 0xE8BB018370E0C610 >> 1),
        (12, ("network",), 0x0DFBACF0942CE7FD >> 1),
        (7, (), 0x8E8A2CE49B690279 >> 1),
    ],
)
def test_a_seed_is_half_a_sha256_on_every_machine(seed: int, names: tuple, expected: int):
    assert derive(seed, *names) == expected < 2**63


def test_purposes_do_not_share_a_stream():
    seeds = {derive(seed, name, epoch) for seed in range(4) for name in ("order", "crop") for epoch in range(50)}
    assert len(seeds) == 400
    assert not torch.equal(torch.rand(4, generator=generator(0, "a")), torch.rand(4, generator=generator(0, "b")))


def test_a_block_under_a_purpose_leaves_no_trace():
    seed_all(3)
    expected = [draw() for _ in range(2)]
    seed_all(3)
    first = draw()
    with seeded(5, "evaluation"):
        inside = draw()
    with pytest.raises(RuntimeError), seeded(6, "evaluation"):
        draw()
        raise RuntimeError
    assert [first, draw()] == expected
    with seeded(5, "evaluation"):
        assert draw() == inside


def test_the_state_survives_a_safe_file(tmp_path):
    seed_all(2**40 + 1)
    np.random.randn()  # caches a second normal number
    random.gauss(0, 1)
    torch.save(get_rng_state(), tmp_path / "rng")
    expected = [draw(), np.random.randn(), random.gauss(0, 1)]
    seed_all(0)
    set_rng_state(torch.load(tmp_path / "rng", weights_only=True))
    assert [draw(), np.random.randn(), random.gauss(0, 1)] == expected
