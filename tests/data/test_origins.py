"""Positions of examples in joined sets, and bytes of synthetic images."""

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

from kdx.config.compose import compose
from kdx.data.sets import TensorSet
from kdx.data.sources.concat import ConcatSet
from kdx.data.sources.own import read
from kdx.runs.build import make


def part(size: int, first: int) -> TensorSet:
    images = torch.arange(first, first + size, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 2, 2, 1).contiguous()
    return TensorSet(images, torch.arange(size), 255)


def test_each_part_of_a_joined_set_keeps_its_own_origins():
    """Of three examples of five, and two of four: origins go on where the first source, not its part, ends."""
    chosen = part(5, 0).subset(torch.tensor([4, 0, 2])), part(4, 100).subset(torch.tensor([3, 1]))
    joined = ConcatSet(chosen)
    assert joined.origin.tolist() == [4, 0, 2, 5 + 3, 5 + 1]
    assert joined.pool == 9
    some = joined.subset(torch.tensor([4, 1, 3]))
    assert some.origin.tolist() == [5 + 1, 0, 5 + 3]
    pixels = [int(some.whole(i).flatten()[0]) for i in range(3)]
    assert pixels == [101, 0, 103]


def images(noise: float) -> torch.Tensor:
    config = compose(["dataset=synthetic", "dataset.train_size=40", "dataset.input_shape=[1,8,8]"]).config
    train, _ = make({**config["dataset"], "noise": noise}).load()
    return torch.stack([torch.from_numpy(train.whole(i).copy()) for i in range(40)]).double()


# share of the bytes that are black or white: a normal number of deviation 5 lies outside [0, 1] nine times of ten
@pytest.mark.parametrize(("noise", "least", "most"), [(0.0, 0.0, 0.05), (0.3, 0.1, 0.5), (5.0, 0.88, 0.96)])
def test_synthetic_bytes_are_clipped_and_do_not_wrap(noise: float, least: float, most: float):
    noisy, plain = images(noise), images(0.0)
    extreme = ((noisy == 0) | (noisy == 255)).double().mean().item()
    assert least <= extreme <= most
    assert noisy[plain > 200].mean() > noisy[plain < 50].mean()


def test_half_precision_images_are_read_back_by_value():
    """Of two bytes each on their way in, single precision on their way out."""
    inputs = torch.randn(3, 2, 4, 5).half()
    items = TensorDataset(inputs, torch.tensor([1, 0, 1]))
    for index in range(3):
        array, label = read(items, index, "mine")
        assert array.dtype == np.float32 and label == [1, 0, 1][index]
        assert torch.equal(torch.from_numpy(array).permute(2, 0, 1), inputs[index].float())
