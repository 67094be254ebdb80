"""A hand-made encoder of a few hundred weights with the features of a text network, for tests."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdx.core.batch import TOKEN_MASK
from kdx.core.outputs import Outputs


class _Layer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.out, self.inner, self.outer = nn.Linear(width, width), nn.Linear(width, width), nn.Linear(width, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))

    def forward(self, x: Tensor, keys: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        parts = {"query": self.query, "key": self.key, "value": self.value}
        seen = {name: part(x).unflatten(2, (self.heads, -1)).transpose(1, 2) for name, part in parts.items()}
        scores = seen["query"] @ seen["key"].mT / math.sqrt(seen["query"].shape[3])
        probs = scores.masked_fill(~keys[:, None, None], -torch.inf).softmax(3)
        mixed = (probs @ seen["value"]).transpose(1, 2).flatten(2)
        x = self.norms[0](x + self.out(mixed))
        x = self.norms[1](x + self.outer(F.gelu(self.inner(x))))
        return x, {**seen, "attention": scores, "attention_probs": probs}


class SmallEncoder(nn.Module):
    """Logits [B, num_classes] of texts from the mean over their tokens, or [B, L, vocabulary] of their tokens.

    Args:
        vocabulary: Number of token ids.
        width: Width of all layers.
        heads: Attention heads of each layer.
        layers: Number of layers.
        num_classes: Number of classes; None for logits of each token, by the table of embeddings.
        positions: Longest text.
    """

    def __init__(
        self, vocabulary: int, width: int, heads: int, layers: int, num_classes: int | None, positions: int = 16
    ):
        super().__init__()
        self.words, self.places = nn.Embedding(vocabulary, width), nn.Embedding(positions, width)
        self.norm = nn.LayerNorm(width)
        self.layers = nn.ModuleList(_Layer(width, heads) for _ in range(layers))
        self.head = nn.Linear(width, vocabulary if num_classes is None else num_classes)
        self.of_tokens = num_classes is None

    def forward(self, inputs: Mapping[str, Tensor]) -> Outputs:
        keys = inputs[TOKEN_MASK] != 0
        x = self.norm(self.words(inputs["input_ids"]) + self.places.weight[: keys.shape[1]])
        features = {"embeddings": x}
        for i, layer in enumerate(self.layers, 1):
            x, seen = layer(x, keys)
            features |= {f"hidden.{i}": x, **{f"{name}.{i}": feature for name, feature in seen.items()}}
        pooled = (x * keys[..., None]).sum(1) / keys.sum(1, keepdim=True)
        features |= {"cls": x[:, 0], "pooled": pooled}
        return Outputs(self.head(x if self.of_tokens else pooled), features)


def start_from(student: SmallEncoder, teacher: SmallEncoder, layers: list[int]) -> None:
    """Copy the embeddings, the head and some layers, counted from 1, of a teacher of the student's width."""
    state = teacher.state_dict()
    kept = {name: t for name, t in state.items() if not name.startswith("layers.")}
    for i, layer in enumerate(layers):
        prefix = f"layers.{layer - 1}."
        kept |= {f"layers.{i}.{n.removeprefix(prefix)}": t for n, t in state.items() if n.startswith(prefix)}
    student.load_state_dict(kept)
