"""An encoder of text with a classifier, whose features have roles."""

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from kdx.core.derived import Derived
from kdx.core.errors import UserError
from kdx.core.outputs import Outputs
from kdx.models.text.attention import Projections, attention_rules, by_head

Pooling = Literal["mean", "cls"]
Head = Literal["linear", "tanh"]


class _Tape:
    """Storage of the hooks during one call."""

    def __init__(self) -> None:
        self.open = False
        self.found: dict[str, Tensor] = {}

    @contextmanager
    def recording(self) -> Iterator[dict[str, Tensor]]:
        self.open, self.found = True, {}
        try:
            yield self.found
        finally:
            self.open, self.found = False, {}


class _Hook:
    # a class, not a closure, so that a network with hooks can be copied and pickled
    def __init__(self, tape: _Tape, role: str):
        self.tape, self.role = tape, role

    def __call__(self, module: nn.Module, args: tuple[object, ...], output: Any) -> None:
        if self.tape.open:
            self.tape.found[self.role] = output if isinstance(output, Tensor) else output[0]


class TextEncoder(nn.Module):
    """An encoder of the library transformers, a pooling and a classifier: inputs of `Tokens` to `Outputs`.

    Features, with B examples, L tokens, width D and heads of size d:
        `embeddings`: output of the embedding layer, [B, L, D].
        `hidden.1` ... `hidden.M`: after each layer, [B, L, D].
        `cls`: the last layer at the first token, [B, D].
        `pooled`: what enters the classifier, [B, D].
        `query.k`, `key.k`, `value.k`: of layer k, from 1, [B, heads, L, d].
        `attention.k`: scores before the softmax, `query key^T / sqrt(d)`, [B, heads, L, L], float32. They have no mask:
            rows and columns of padding hold numbers without meaning.
        `attention_probs.k`: after the softmax, with the mask: columns of padding are 0.

    Scores and probabilities are computed when they are read, from queries and keys that hooks capture, so the encoder
    can use a fused attention that never forms them. Encoders with another attention (relative positions, one fused
    projection) have no `query.k` and what follows from it.

    Args:
        encoder: The encoder.
        layers: Its layers, in order.
        projections: Queries, keys and values of each layer; None where it has other ones.
        num_classes: Number of outputs.
        pooling: "mean" of the last layer over the tokens, or "cls" for the first token.
        head: "linear"; or "tanh" for a linear layer, a tanh, dropout and a linear layer.
        head_dropout: Dropout before the last linear layer.
        max_positions: Most tokens that it reads; None without a limit.
        tokenizer: Fingerprint of the tokenizer, kept with the weights: weights of another tokenizer do not load.
    """

    def __init__(
        self,
        encoder: nn.Module,
        layers: nn.ModuleList,
        projections: Projections | None,
        num_classes: int,
        pooling: Pooling,
        head: Head,
        head_dropout: float,
        max_positions: int | None,
        tokenizer: str,
    ):
        super().__init__()
        self.encoder = encoder
        width = int(encoder.config.hidden_size)  # pyright: ignore[reportAttributeAccessIssue,reportArgumentType]
        self.dense = nn.Linear(width, width) if head == "tanh" else None
        self.dropout = nn.Dropout(head_dropout)
        self.fc = nn.Linear(width, num_classes)
        self.pooling, self.max_positions, self.tokenizer = pooling, max_positions, tokenizer
        self.heads = None if projections is None else projections.heads
        self._depth = len(layers)
        self._reads_types = "token_type_ids" in inspect.signature(encoder.forward).parameters
        self._tape = _Tape()
        embeddings = getattr(encoder, "embeddings", None)
        if isinstance(embeddings, nn.Module):
            embeddings.register_forward_hook(_Hook(self._tape, "embeddings"))
        for k, layer in enumerate(layers, 1):
            layer.register_forward_hook(_Hook(self._tape, f"hidden.{k}"))
            for name, module in {} if projections is None else projections.of(layer).items():
                module.register_forward_hook(_Hook(self._tape, f"{name}.{k}"))
        self._last = f"hidden.{self._depth}"

    @property
    def head(self) -> nn.Linear:
        """The final classifier."""
        return self.fc

    def get_extra_state(self) -> dict[str, str]:
        """The fingerprint of the tokenizer."""
        return {"tokenizer": self.tokenizer}

    def set_extra_state(self, state: Mapping[str, str]) -> None:
        """Raise UserError for weights of another tokenizer."""
        if state["tokenizer"] != self.tokenizer:
            raise UserError(
                f"these weights were trained with the tokenizer {state['tokenizer']}, and the data set has "
                f"{self.tokenizer} (fingerprints): the ids mean other tokens; set dataset.tokenizer to theirs"
            )

    def forward(self, inputs: Mapping[str, Tensor]) -> Outputs:
        mask, length = inputs["attention_mask"], inputs["input_ids"].shape[1]
        if self.max_positions is not None and length > self.max_positions:
            raise UserError(
                f"the encoder reads at most {self.max_positions} tokens, and a batch has {length}; lower "
                f"dataset.max_length to {self.max_positions}"
            )
        given = {name: x for name, x in inputs.items() if name != "token_type_ids" or self._reads_types}
        with self._tape.recording() as found:
            whole = self.encoder(**given)[0]
        # the last layer's own output may lack a final norm, and `pooled` must be what the logits come from
        found[self._last] = whole
        features = {
            role: by_head(x, self.heads) if self.heads and role.startswith(("query", "key", "value")) else x
            for role, x in found.items()
        }
        features["cls"] = whole[:, 0]
        pooled = _mean(whole, mask) if self.pooling == "mean" else whole[:, 0]
        if self.dense is not None:
            pooled = self.dense(pooled).tanh()
        features["pooled"] = pooled
        rules = attention_rules(self._depth, mask) if self.heads else {}
        return Outputs(self.fc(self.dropout(pooled)), Derived(features, rules))


def _mean(hidden: Tensor, mask: Tensor) -> Tensor:
    """Mean over the tokens of [B, L, D]."""
    share = mask.to(hidden.dtype)
    share = share / share.sum(1, keepdim=True).clamp(min=1)
    return torch.einsum("bld,bl->bd", hidden, share)
