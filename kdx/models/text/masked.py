"""Encoders of text that predict hidden tokens."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdx.core.errors import UserError
from kdx.core.outputs import Outputs
from kdx.core.pretrained import find_file
from kdx.core.ranges import PartialFraction, PositiveInt
from kdx.models.text.build import transformers_model
from kdx.models.text.encoder import TextEncoder

HEADS = (
    ("cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm", "cls.predictions.bias"),
    ("vocab_transform", "vocab_layer_norm", "vocab_projector.bias"),
)
"""Names of a pretrained head's layer, norm and bias: in BERT; in DistilBERT."""


class MaskedEncoder(nn.Module):
    """An encoder and BERT's head for masked language modelling: logits [B, L, V] of each token.

    The head is a linear layer, GELU, layer norm, and the table of word embeddings with a bias as the output layer.
    Features are those of `TextEncoder`.

    Args:
        text: The encoder; its classifier is taken out.
    """

    def __init__(self, text: TextEncoder):
        super().__init__()
        self.text = text
        width = text.fc.in_features
        text.add_module("fc", nn.Identity())
        encoder: Any = text.encoder
        config = encoder.config
        self.dense = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=getattr(config, "layer_norm_eps", 1e-12))
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))
        nn.init.normal_(self.dense.weight, 0.0, config.initializer_range)
        nn.init.zeros_(self.dense.bias)
        self.last = f"hidden.{config.num_hidden_layers}"

    @property
    def max_positions(self) -> int | None:
        """Most tokens that it reads; None without a limit."""
        return self.text.max_positions

    @property
    def words(self) -> Tensor:
        """The table of word embeddings, [V, D]."""
        encoder: Any = self.text.encoder
        return encoder.get_input_embeddings().weight

    def forward(self, inputs: Mapping[str, Tensor]) -> Outputs:
        outputs = self.text(inputs)
        hidden = self.norm(F.gelu(self.dense(outputs.feature(self.last))))
        return replace(outputs, logits=F.linear(hidden, self.words, self.bias))


def masked_model(
    init: str | None,
    pretrained: bool,
    architecture: str,
    options: Mapping[str, Any],
    layers: Sequence[PositiveInt] | None,
    embeddings: Literal["copy", "svd", "random"],
    dropout: PartialFraction,
    attention_dropout: PartialFraction,
    tokenizer: str,
) -> MaskedEncoder:
    """Build an encoder with a head for masked language modelling.

    The head starts from the weights of `init`, if these have one of the same width; else it is random.

    Args:
        init, pretrained, architecture, options, layers, embeddings, dropout, attention_dropout, tokenizer: As in
            `kdx.models.text.build.transformers_model`.

    Raises:
        UserError: The library or the weights are missing, sizes or tokenizers do not fit, or the architecture's word
            embeddings have another width than its layers.

    References:
        Devlin, Chang, Lee, Toutanova, "BERT: Pre-training of Deep Bidirectional Transformers for Language
        Understanding", 2019. https://arxiv.org/abs/1810.04805
    """
    sizes = (options, layers, embeddings, dropout, attention_dropout)
    text = transformers_model(init, pretrained, architecture, *sizes, "mean", "linear", 0.0, 1, tokenizer)
    net = MaskedEncoder(text)
    if net.words.shape[1] != net.dense.in_features:
        raise UserError(
            f"the output layer shares the word embeddings, so their width {net.words.shape[1]} must be the layers' "
            f"{net.dense.in_features}; choose another architecture"
        )
    if init is not None and pretrained:
        net.load_state_dict(pretrained_head(init, net), strict=False)
    return net


def pretrained_head(init: str, net: MaskedEncoder) -> dict[str, Tensor]:
    """Weights of a pretrained head by their names in `MaskedEncoder`; empty if there is none of the same size."""
    from safetensors import safe_open

    try:
        path = find_file(init, "model.safetensors", "init")
    except UserError:
        return {}  # weights in another format
    with safe_open(path, "pt") as file:
        there = set(file.keys())
        for dense, norm, bias in HEADS:
            names = {
                "dense.weight": f"{dense}.weight",
                "dense.bias": f"{dense}.bias",
                # older files call weight and bias of a layer norm gamma and beta
                "norm.weight": _either(f"{norm}.weight", f"{norm}.gamma", there),
                "norm.bias": _either(f"{norm}.bias", f"{norm}.beta", there),
                "bias": bias,
            }
            if there.issuperset(names.values()):
                found = {mine: file.get_tensor(theirs) for mine, theirs in names.items()}
                mine = net.state_dict()
                return found if all(mine[name].shape == t.shape for name, t in found.items()) else {}
    return {}


def _either(new: str, old: str, there: set[str]) -> str:
    return new if new in there else old
