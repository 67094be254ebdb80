"""A data set of one's own: a torch Dataset of (input, label)."""

import torch
from torch import Tensor
from torch.utils.data import Dataset


class Bars(Dataset):
    """Images [1, 8, 8] with a bright row (class 0), column (1) or diagonal (2) in noise.

    Args:
        size: Number of images; classes take turns.
        seed: Chooses places and noise, so that an item is the same each time it is read.
    """

    def __init__(self, size: int, seed: int):
        self.size, self.seed = size, seed

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        g = torch.Generator().manual_seed(self.seed * 1_000_003 + index)
        image, label = 0.5 * torch.randn(1, 8, 8, generator=g), index % 3
        place = int(torch.randint(8, (), generator=g))
        if label == 0:
            image[:, place] += 1
        elif label == 1:
            image[:, :, place] += 1
        else:
            image += torch.eye(8).roll(place, 1)
        return image, label
