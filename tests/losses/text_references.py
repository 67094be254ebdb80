"""Losses on texts as loops over Python floats, written from the papers' equations."""

import math
from collections.abc import Callable, Sequence

from loss_references import Reference, Rows, dot, kl, mean_square, scaled, softmax
from torch import Tensor

from kdx.core.batch import TOKEN_MASK, Batch
from kdx.core.outputs import Outputs
from kdx.losses.base.term import Term

Pairs = Sequence[tuple[int, int]]
Example = Callable[[Term, list, list, int], list[float]]  # features and number of tokens to a value per token


def lengths(batch: Batch) -> list[int]:
    """Number of tokens of each text; padding follows them."""
    assert isinstance(batch.inputs, dict) and isinstance(batch.inputs[TOKEN_MASK], Tensor)
    return [int(n) for n in batch.inputs[TOKEN_MASK].sum(1)]


def over_tokens(kind: str, pairs: Pairs, average: str, example: Example) -> Reference:
    """A reference that adds the values of the tokens over pairs of layers, then averages over the tokens."""

    def reference(term: Term, student: Outputs, teacher: Outputs, batch: Batch) -> list[float]:
        tokens, sums = lengths(batch), [0.0] * len(batch)
        for mine, theirs in pairs:
            name = [f"{kind}.{layer}" if layer else "embeddings" for layer in (mine, theirs)]
            rows = student.features[name[0]].tolist(), teacher.features[name[1]].tolist()
            for i, n in enumerate(tokens):
                sums[i] += math.fsum(example(term, rows[0][i], rows[1][i], n))
        if average == "all":
            return [total * len(tokens) / sum(tokens) for total in sums]
        return [total / n for total, n in zip(sums, tokens, strict=True)]

    return reference


def attention_scores(pairs: Pairs, average: str) -> Reference:
    """TinyBERT: squared gaps of the scores of tokens."""

    def example(term: Term, mine: list[Rows], theirs: list[Rows], n: int) -> list[float]:
        heads = list(zip(mine, theirs, strict=True))
        return [math.fsum(mean_square(a[q][:n], b[q][:n]) for a, b in heads) / len(heads) for q in range(n)]

    return over_tokens("attention", pairs, average, example)


def hidden_states(pairs: Pairs, average: str, projected: bool) -> Reference:
    """TinyBERT: squared gaps of embeddings (layer 0) and hidden states, the student's by way of a linear map."""

    def example(term: Term, mine: Rows, theirs: Rows, n: int) -> list[float]:
        if projected:
            weight, bias = (p.tolist() for p in term.parameters())
            mine = [[dot(row, x) + b for row, b in zip(weight, bias, strict=True)] for x in mine]
        return [mean_square(a, b) for a, b in zip(mine[:n], theirs[:n], strict=True)]

    return over_tokens("hidden", pairs, average, example)


def cosine(mine: int, theirs: int, average: str) -> Reference:
    """DistilBERT: one minus the cosine of two hidden states."""
    return over_tokens(
        "hidden",
        [(mine, theirs)],
        average,
        lambda term, a, b, n: [1 - dot(scaled(x), scaled(y)) for x, y in zip(a[:n], b[:n], strict=True)],
    )


def pkd(pairs: Pairs) -> Reference:
    """PKD: squared gaps of the first token's states of length 1."""

    def reference(term: Term, student: Outputs, teacher: Outputs, batch: Batch) -> list[float]:
        values = []
        for i in range(len(batch)):
            gaps = []
            for mine, theirs in pairs:
                a, b = student.features[f"hidden.{mine}"][i, 0], teacher.features[f"hidden.{theirs}"][i, 0]
                gaps.append(mean_square(scaled(a.tolist()), scaled(b.tolist())))
            values.append(math.fsum(gaps) / len(gaps))
        return values

    return reference


def attention_kl(mine: int, theirs: int, average: str) -> Reference:
    """MiniLM: KL between attention distributions over the tokens."""

    def example(term: Term, a: list[Rows], b: list[Rows], n: int) -> list[float]:
        def row(q: int) -> float:
            return math.fsum(kl(softmax(y[q][:n], 1.0), softmax(x[q][:n], 1.0)) for x, y in zip(a, b, strict=True))

        return [row(q) / len(a) for q in range(n)]

    return over_tokens("attention", [(mine, theirs)], average, example)


def relations(kind: str, mine: int, theirs: int, average: str, heads: int | None) -> Reference:
    """MiniLM: KL between softmax(X X^T / sqrt(d)) of each head; MiniLMv2: of the joint vector cut into `heads`."""

    def cut(of: list[Rows]) -> list[Rows]:
        if heads is None:
            return of
        joint = [[x for head in of for x in head[t]] for t in range(len(of[0]))]
        d = len(joint[0]) // heads
        return [[row[h * d : (h + 1) * d] for row in joint] for h in range(heads)]

    def distribution(head: Rows, q: int, n: int) -> list[float]:
        return softmax([dot(head[q], head[k]) / math.sqrt(len(head[q])) for k in range(n)], 1.0)

    def example(term: Term, a: list[Rows], b: list[Rows], n: int) -> list[float]:
        pairs = list(zip(cut(a), cut(b), strict=True))
        return [
            math.fsum(kl(distribution(y, q, n), distribution(x, q, n)) for x, y in pairs) / len(pairs) for q in range(n)
        ]

    return over_tokens(kind, [(mine, theirs)], average, example)
