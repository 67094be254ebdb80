"""Hides tokens for masked language modelling, as a pure function of (data seed, epoch, text)."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kdx.core.batch import TOKEN_MASK, UNLABELLED
from kdx.core.pretrained import TokenizerFile
from kdx.core.ranges import NonNegative, OpenFraction, Probability
from kdx.core.seed import derive
from kdx.data.sets import DataError

MASKS = ("[MASK]", "<mask>")
WORD_STARTS = ("\u0120", "\u2581")  # a space, in byte-level BPE and in SentencePiece


@dataclass(frozen=True, kw_only=True)
class Masking:
    """Which tokens are hidden, and what stands in their place.

    In each text, `share` of the tokens, rounded up, are chosen without replacement; special tokens never. A chosen
    token is the label of its position.

    Attributes:
        share: Share of a text's tokens.
        masked: Share of the chosen tokens that become the mask token.
        random: Share of them that become a random token; the rest stay as they are.
        whole_words: Whether all tokens of a word are chosen together; words are then drawn while fewer tokens than
            `share` are chosen.
        smoothing: A token is chosen with a weight of its count in the training set to the power of minus this, so
            that rare tokens are chosen more often; 0 weights all alike. A word has the mean weight of its tokens.

    Raises:
        DataError: `masked` and `random` exceed 1.

    References:
        Devlin, Chang, Lee, Toutanova, "BERT: Pre-training of Deep Bidirectional Transformers for Language
        Understanding", 2019 (80/10/10, whole words in its code). https://arxiv.org/abs/1810.04805
        Sanh, Debut, Chaumond, Wolf, "DistilBERT", 2019 (smoothing 0.7 in its code). https://arxiv.org/abs/1910.01108
    """

    share: OpenFraction
    masked: Probability
    random: Probability
    whole_words: bool
    smoothing: NonNegative

    def __post_init__(self) -> None:
        if self.masked + self.random > 1 + 1e-9:
            raise DataError(f"masking.masked + masking.random is at most 1, got {self.masked} + {self.random}")


class Masker:
    """Hides tokens of padded texts.

    The random numbers of a position are a hash of seed, epoch, text and position. So they do not depend on the batch,
    on the process, or on the step at which a run was resumed, and no state is kept.

    Args:
        masking: The settings.
        vocabulary: Facts of the tokens.
        counts: Count of each token in the training set, int64 [V].
    """

    def __init__(self, masking: Masking, vocabulary: "Vocabulary", counts: Tensor):
        self.masking, self.vocabulary = masking, vocabulary
        self.weights = counts.clamp(min=1).double() ** -masking.smoothing
        self.weights[vocabulary.special] = 0.0

    def hide(
        self, inputs: Mapping[str, Tensor], numbers: Tensor, seed: int, epoch: int
    ) -> tuple[dict[str, Tensor], Tensor]:
        """The inputs with hidden tokens, and the labels.

        Args:
            inputs: `input_ids` and `attention_mask` [B, L], and others, which stay.
            numbers: Number of each text in its source, int64 [B].
            seed: The data seed.
            epoch: The epoch.

        Returns:
            New inputs, and the ids of the hidden tokens with -1 elsewhere, int64 [B, L].
        """
        ids = inputs["input_ids"]
        weights = torch.where(inputs[TOKEN_MASK] != 0, self.weights[ids], 0.0)
        chosen = self._chosen(ids, weights, uniform(numbers, ids.shape[1], derive(seed, "masking", epoch, "choice")))
        fate = uniform(numbers, ids.shape[1], derive(seed, "masking", epoch, "fate"))
        drawn = uniform(numbers, ids.shape[1], derive(seed, "masking", epoch, "token"))
        size = len(self.weights)
        others = (drawn * size).long().clamp(max=size - 1)
        shown = torch.where(fate < self.masking.masked, self.vocabulary.mask_id, ids)
        by_chance = (fate >= self.masking.masked) & (fate < self.masking.masked + self.masking.random)
        shown = torch.where(by_chance, others, shown)
        return {**inputs, "input_ids": torch.where(chosen, shown, ids)}, torch.where(chosen, ids, UNLABELLED)

    def _chosen(self, ids: Tensor, weights: Tensor, drawn: Tensor) -> Tensor:
        """Mask of the chosen tokens, bool [B, L].

        Ordering by `-log(u) / weight` draws without replacement in proportion to the weights (Efraimidis, Spirakis,
        2006).
        """
        length = ids.shape[1]
        wanted = (self.masking.share * (weights > 0).sum(1, keepdim=True)).ceil()
        begins = torch.ones_like(ids, dtype=torch.bool)
        if self.masking.whole_words:
            begins = ~self.vocabulary.continues[ids] | (weights == 0)
            begins[:, 1:] |= weights[:, :-1] == 0  # a text may start within a word
        begins[:, 0] = True
        first = torch.where(begins, torch.arange(length), 0).cummax(1).values  # position of each token's word
        sums, sizes = (torch.zeros_like(weights).scatter_add(1, first, x) for x in (weights, torch.ones_like(weights)))
        keys = torch.where(sums > 0, -drawn.log() * sizes / sums, torch.inf).gather(1, first)
        order = torch.argsort(keys, dim=1, stable=True)
        words = first.gather(1, order)
        fresh = torch.ones_like(begins)
        fresh[:, 1:] = words[:, 1:] != words[:, :-1]
        before = torch.where(fresh, torch.arange(length), 0).cummax(1).values  # tokens of the words drawn earlier
        taken = (before < wanted) & keys.gather(1, order).isfinite()
        return torch.zeros_like(begins).scatter(1, order, taken)


@dataclass(frozen=True)
class Vocabulary:
    """Facts of a tokenizer's tokens.

    Attributes:
        mask_id: Id of the mask token.
        special: Mask of the special tokens, bool [V].
        continues: Mask of the tokens that continue a word, bool [V].
    """

    mask_id: int
    special: Tensor
    continues: Tensor


def vocabulary(file: TokenizerFile) -> Vocabulary:
    """The facts of a tokenizer. Raises DataError if it has no mask token, or no table of tokens."""
    facts = json.loads(file.path.read_bytes())
    added = {token["content"]: int(token["id"]) for token in facts["added_tokens"] if token["special"]}
    known = facts["model"]["vocab"]
    tokens = known if isinstance(known, dict) else {token: i for i, (token, _) in enumerate(known)}
    mask_id = next(({**tokens, **added}[name] for name in MASKS if name in added or name in tokens), None)
    if mask_id is None:
        raise DataError(f"hidden tokens need a mask token ({' or '.join(MASKS)}), and {file.path} has none")
    special, continues = (torch.zeros(file.vocab_size, dtype=torch.bool) for _ in range(2))
    special[list(added.values())] = True
    prefix = facts["model"].get("continuing_subword_prefix")
    spaced = any(token.startswith(WORD_STARTS) for token in tokens)
    for token, i in tokens.items():
        continues[i] = token.startswith(prefix) if prefix else spaced and not token.startswith(WORD_STARTS)
    return Vocabulary(mask_id, special, continues & ~special)


def uniform(numbers: Tensor, length: int, seed: int) -> Tensor:
    """Uniform random numbers above 0 and below 1, float64 [B, length], a hash of (seed, number, position).

    The hash is SplitMix64 (Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators", 2014).

    Example:
        >>> torch.equal(uniform(torch.tensor([5, 7]), 3, 0)[1:], uniform(torch.tensor([7]), 3, 0))
        True
    """
    with np.errstate(over="ignore"):
        state = _mixed(numbers.numpy().astype(np.uint64) * _GOLDEN + np.uint64(seed))
        drawn = _mixed(state[:, None] + np.arange(1, length + 1, dtype=np.uint64) * _GOLDEN)
    return torch.from_numpy(((drawn >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52)


_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _mixed(x: np.ndarray) -> np.ndarray:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def token_counts(ids: Tensor, size: int) -> Tensor:
    """Count of each token among ids, int64 [size], in parts, so that ids in a file are read once and not kept.

    Example:
        >>> token_counts(torch.tensor([2, 0, 2], dtype=torch.int32), 4)
        tensor([1, 0, 2, 0])
    """
    counts = torch.zeros(size, dtype=torch.int64)
    for at in range(0, math.ceil(len(ids) / _PART)):
        counts += torch.bincount(ids[at * _PART : (at + 1) * _PART].long(), minlength=size)
    return counts


_PART = 1 << 22
