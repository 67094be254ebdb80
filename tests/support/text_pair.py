"""A pair of small encoders and texts of made-up tokens, for tests."""

import torch
from torch import Tensor

from kdx.core.batch import TOKEN_MASK
from kdx.core.spec import DataSpec, Tokens
from kdx.tasks.tokens import MaskedTokens

VOCABULARY, LENGTH = 11, 6
PAIR = (
    {"vocabulary": VOCABULARY, "width": 8, "heads": 2, "layers": 2},
    {"vocabulary": VOCABULARY, "width": 8, "heads": 4, "layers": 4},
)
"""Sizes of a student and of its teacher."""


SPEC = DataSpec(MaskedTokens(VOCABULARY, LENGTH), Tokens(VOCABULARY, LENGTH, 0, "made up"), 100)


def lines(size: int) -> dict[str, Tensor]:
    """Random texts of 2 tokens to all, padded by token 0."""
    lengths = torch.arange(size) % (LENGTH - 1) + 2
    mask = (torch.arange(LENGTH) < lengths[:, None]).long()
    return {"input_ids": torch.randint(1, VOCABULARY, (size, LENGTH)) * mask, TOKEN_MASK: mask}
