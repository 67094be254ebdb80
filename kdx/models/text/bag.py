"""The reference without word order: a linear classifier on the mean of word vectors."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from kdx.core.outputs import Outputs
from kdx.core.pretrained import tokenizer_file
from kdx.core.ranges import PositiveInt


class BagOfWords(nn.Module):
    """Mean of learned token vectors [B, D], the feature `pooled`, and a linear layer.

    Args:
        width: D.
        num_classes: Number of outputs.
        tokenizer: The data set's tokenizer, which sets the size of the vocabulary.
    """

    def __init__(self, width: PositiveInt, num_classes: PositiveInt, tokenizer: str):
        super().__init__()
        self.words = nn.Embedding(tokenizer_file(tokenizer, "dataset.tokenizer").vocab_size, width)
        nn.init.normal_(self.words.weight, std=0.1)
        self.fc = nn.Linear(width, num_classes)

    @property
    def head(self) -> nn.Linear:
        """The classifier."""
        return self.fc

    def forward(self, inputs: Mapping[str, Tensor]) -> Outputs:
        mask = inputs["attention_mask"].to(self.words.weight.dtype)
        share = mask / mask.sum(1, keepdim=True).clamp(min=1)
        pooled = torch.einsum("bld,bl->bd", self.words(inputs["input_ids"]), share)
        return Outputs(self.fc(pooled), {"pooled": pooled})
