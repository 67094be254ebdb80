"""Attention scores and probabilities from captured queries and keys."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from kdx.core.derived import Rule

NAMES = (("query", "key", "value"), ("q_lin", "k_lin", "v_lin"))
"""Names of the three projections: in BERT, RoBERTa and ELECTRA; in DistilBERT."""
ABSOLUTE = ("bert", "roberta", "xlm-roberta", "camembert", "electra", "distilbert")
"""Architectures whose scores are products of queries and keys alone, without relative positions."""


@dataclass(frozen=True)
class Projections:
    """Projections of a layer that give queries, keys and values.

    Attributes:
        names: Names of the three linear layers.
        heads: Number of heads.
    """

    names: tuple[str, str, str]
    heads: int

    def of(self, layer: nn.Module) -> dict[str, nn.Module]:
        """The three linear layers of a layer, as "query", "key" and "value"."""
        found = {path.rpartition(".")[2]: module for path, module in layer.named_modules()}
        return dict(zip(NAMES[0], (found[name] for name in self.names), strict=True))


def find_projections(architecture: str, layer: nn.Module, heads: int) -> Projections | None:
    """The projections of an encoder's layers; None where its scores are no plain products of queries and keys."""
    if architecture not in ABSOLUTE:
        return None
    linear = {path.rpartition(".")[2] for path, module in layer.named_modules() if isinstance(module, nn.Linear)}
    names = next((names for names in NAMES if linear.issuperset(names)), None)
    return None if names is None else Projections(names, heads)


def by_head(x: Tensor, heads: int) -> Tensor:
    """A projection [B, L, heads * d] as [B, heads, L, d].

    Example:
        >>> by_head(torch.zeros(2, 5, 12), 3).shape
        torch.Size([2, 3, 5, 4])
    """
    return x.unflatten(2, (heads, -1)).transpose(1, 2)


def scores(query: Tensor, key: Tensor) -> Tensor:
    """Attention scores before the softmax in float32, [B, heads, L, L], of queries and keys [B, heads, L, d].

    Example:
        >>> scores(torch.ones(1, 1, 2, 4), torch.ones(1, 1, 2, 4))
        tensor([[[[2., 2.],
                  [2., 2.]]]])
    """
    with torch.autocast(query.device.type, enabled=False):
        query, key = (x if x.dtype == torch.float64 else x.float() for x in (query, key))
        return query @ key.transpose(2, 3) / math.sqrt(query.shape[3])


def attention_rules(layers: int, mask: Tensor) -> dict[str, Rule]:
    """Rules that compute scores and probabilities of each layer, by role.

    Args:
        layers: Number of layers.
        mask: Attention mask of the batch, [B, L].
    """
    rules: dict[str, Rule] = {}
    for k in range(1, layers + 1):
        rules[f"attention.{k}"] = partial(_scores, k)
        rules[f"attention_probs.{k}"] = partial(_probabilities, k, mask)
    return rules


def _scores(k: int, stored: Mapping[str, Tensor]) -> Tensor:
    return scores(stored[f"query.{k}"], stored[f"key.{k}"])


def _probabilities(k: int, mask: Tensor, stored: Mapping[str, Tensor]) -> Tensor:
    return _scores(k, stored).masked_fill(mask[:, None, None] == 0, -math.inf).softmax(3)
