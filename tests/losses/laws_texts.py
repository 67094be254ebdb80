"""Terms on texts that the laws hold for; a new one joins by a line."""

from functools import partial

import text_references as loops
import torch
from law_case import CLASSES, Case
from torch import Tensor

from kdx.core.batch import TOKEN_MASK
from kdx.core.spec import DataSpec, Tokens
from kdx.losses.features.distilbert import HiddenCosine
from kdx.losses.features.pkd import PKD
from kdx.losses.features.tinybert import TinyBERTAttention, TinyBERTHidden
from kdx.losses.relations.minilm import MiniLMAttention, MiniLMValues
from kdx.losses.relations.minilm_v2 import MiniLMRelation
from kdx.tasks.classes import Classes

LENGTH = 4


def texts(size: int) -> dict[str, Tensor]:
    """Texts of 2, 3, 4, 1, 2, ... tokens, and padding."""
    tokens = (torch.arange(size) + 1) % LENGTH + 1
    return {**SPEC.inputs.fake(size, "cpu"), TOKEN_MASK: (torch.arange(LENGTH) < tokens[:, None]).long()}


def encoder(layers: int, heads: int, d: int) -> dict[str, tuple[int, ...]]:
    """Features of an encoder with a width of heads * d."""
    states = {role: (LENGTH, heads * d) for role in ("embeddings", *(f"hidden.{i}" for i in range(1, layers + 1)))}
    scores = {f"attention.{i}": (heads, LENGTH, LENGTH) for i in range(1, layers + 1)}
    parts = ("query", "key", "value")
    vectors = {f"{kind}.{i}": (heads, LENGTH, d) for kind in parts for i in range(1, layers + 1)}
    return {**states, **scores, **vectors, "pooled": (heads * d,)}


SPEC = DataSpec(Classes(CLASSES), Tokens(50, LENGTH, 0, "made up"), 100, torch.arange(100) % CLASSES)
STUDENT, WIDER, DEEPER = encoder(2, 2, 3), encoder(4, 2, 4), encoder(4, 3, 2)
# of a wider teacher with as many heads, and of one as wide with more heads
Wider = partial(Case, student=STUDENT, teacher=WIDER, spec=SPEC, inputs=texts)
Deeper = partial(Case, student=STUDENT, teacher=DEEPER, spec=SPEC, inputs=texts)
THREE = partial(Case, student=encoder(3, 2, 3), teacher=encoder(6, 3, 2), spec=SPEC, inputs=texts)
SKIP = [(1, 2), (2, 4)]  # pairs of layers, every second of the teacher

TERMS = {
    "pkd skip": THREE(lambda: PKD("skip"), loops.pkd([(1, 2), (2, 4)]), "zero"),
    "pkd last": THREE(lambda: PKD("last"), loops.pkd([(1, 4), (2, 5)]), "zero"),
    "tinybert attention": Wider(lambda: TinyBERTAttention(None, "all"), loops.attention_scores(SKIP, "all"), "zero"),
    "tinybert attention of examples": Wider(
        lambda: TinyBERTAttention(None, "example"), loops.attention_scores(SKIP, "example"), "zero"
    ),
    "tinybert hidden": Wider(
        lambda: TinyBERTHidden(None, "all", "shared"), loops.hidden_states([(0, 0), *SKIP], "all", True), ""
    ),
    "tinybert hidden unprojected": Deeper(
        lambda: TinyBERTHidden(None, "example", "none"), loops.hidden_states([(0, 0), *SKIP], "example", False), "zero"
    ),
    "cosine": Deeper(lambda: HiddenCosine(None, None, "all"), loops.cosine(2, 4, "all"), "zero"),
    "cosine of layers": Deeper(lambda: HiddenCosine(1, 2, "example"), loops.cosine(1, 2, "example"), ""),
    "minilm attention": Wider(
        lambda: MiniLMAttention(None, None, "example"), loops.attention_kl(2, 4, "example"), "zero"
    ),
    "minilm values": Wider(
        lambda: MiniLMValues(None, None, "all"), loops.relations("value", 2, 4, "all", None), "zero"
    ),
    "minilm_v2 query": Wider(
        lambda: MiniLMRelation("query", 2, None, None, "example"), loops.relations("query", 2, 4, "example", 2), "zero"
    ),
    "minilm_v2 value": Deeper(
        lambda: MiniLMRelation("value", 6, None, None, "all"), loops.relations("value", 2, 4, "all", 6), "zero"
    ),
    "minilm_v2 layer": Wider(
        lambda: MiniLMRelation("key", 1, 1, 3, "example"), loops.relations("key", 1, 3, "example", 1), ""
    ),
}
