"""Concatenation of sets of images or of texts."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from kdx.data.sets import DataError, ExampleSet, ImageSet
from kdx.data.text.token_set import TokenSet, joined


def concatenated(parts: Sequence[ExampleSet]) -> ExampleSet:
    """Sets of images, or of texts, one after the other; all but the first come from outside the training set.

    Raises:
        DataError: They cannot be mixed.
    """
    texts = [part for part in parts if isinstance(part, TokenSet)]
    if texts:
        return joined(texts)
    return ConcatSet([part for part in parts if isinstance(part, ImageSet)])


class ConcatSet(ImageSet):
    """Concatenation of sets of one shape and scale; all but the first come from outside the training set.

    Each part keeps its own labels and its own positions for augmentation.

    Args:
        parts: The sets, at least one.
        chosen: Positions in the concatenation that belong to this set; None for all.
    """

    foreign = True

    def __init__(self, parts: Sequence[ImageSet], chosen: Tensor | None = None):
        if len({(part.shape, part.scale, part.dtype) for part in parts}) != 1:
            raise ValueError("concatenated sets must have the same shape, scale and dtype")
        if any(part.nearby is not None for part in parts):
            raise DataError("images of another source need all shards at once; set dataset.at_once=null")
        self.parts = tuple(parts)
        self.starts = torch.tensor([0, *(len(part) for part in parts)]).cumsum(0)
        pools = torch.tensor([0, *(part.pool for part in parts)]).cumsum(0)
        self.chosen = torch.arange(int(self.starts[-1])) if chosen is None else chosen
        labels = torch.cat([part.labels for part in parts])
        origin = torch.cat([part.origin + first for part, first in zip(parts, pools, strict=False)])
        super().__init__(labels[self.chosen], parts[0].scale, origin[self.chosen], int(pools[-1]))
        self.shape, self.dtype = parts[0].shape, parts[0].dtype
        self.decodes = any(part.decodes for part in parts)

    def subset(self, indices: Tensor) -> "ConcatSet":
        return ConcatSet(self.parts, self.chosen[indices]).with_targets(**self.at(indices)[0])

    def rows(self, indices: Tensor) -> tuple[np.ndarray, np.ndarray]:
        chosen = self.chosen[indices]
        whose = torch.bucketize(chosen, self.starts[1:], right=True)
        c, h, w = self.shape
        images = np.empty((len(indices), h, w, c), self.dtype)
        for number, part in enumerate(self.parts):
            here = (whose == number).nonzero().flatten()
            if len(here):
                source, rows = part.rows(chosen[here] - self.starts[number])
                images[here.numpy()] = source[rows]
        return images, np.arange(len(indices))

    def whole(self, index: int) -> np.ndarray:
        at = int(self.chosen[index])
        number = int(torch.bucketize(torch.tensor(at), self.starts[1:], right=True))
        return self.parts[number].whole(at - int(self.starts[number]))
