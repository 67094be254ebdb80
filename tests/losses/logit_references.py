"""The later losses on logits again, as loops over Python floats, from the equations alone."""

import math
from collections.abc import Callable

import torch
from loss_references import Reference, Rows, kl, over_logits, softmax
from torch import Tensor

from kdx.core.batch import Batch
from kdx.core.outputs import Outputs
from kdx.losses.base.term import Term


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def tempered(loss: Callable[[list[float], list[float]], float], temperature: float, power: int) -> Reference:
    """`T^power` times a loss of (teacher's p, student's q) at T."""
    return over_logits(lambda z, v, y: temperature**power * loss(softmax(v, temperature), softmax(z, temperature)))


def reverse_kl(temperature: float) -> Reference:
    return tempered(lambda p, q: kl(q, p), temperature, 2)


def symmetric_kl(temperature: float) -> Reference:
    return tempered(lambda p, q: (kl(p, q) + kl(q, p)) / 2, temperature, 2)


def jensen_shannon(temperature: float) -> Reference:
    def loss(p: list[float], q: list[float]) -> float:
        m = [(a + b) / 2 for a, b in zip(p, q, strict=True)]
        return (kl(p, m) + kl(q, m)) / 2

    return tempered(loss, temperature, 2)


def total_variation(temperature: float) -> Reference:
    return tempered(lambda p, q: math.fsum(abs(a - b) for a, b in zip(p, q, strict=True)) / 2, temperature, 1)


def binary_cross_entropy(temperature: float, divisor: int) -> Reference:
    def row(z: list[float], v: list[float], y: int) -> float:
        pairs = zip(softmax(v, temperature), z, strict=True)
        return -math.fsum(p * math.log(sigmoid(a)) + (1 - p) * math.log(1 - sigmoid(a)) for p, a in pairs) / divisor

    return over_logits(row)


def binary_kl(temperature: float, divisor: int) -> Reference:
    def row(z: list[float], v: list[float], y: int) -> float:
        pairs = [(sigmoid(b / temperature), sigmoid(a / temperature)) for a, b in zip(z, v, strict=True)]
        return temperature**2 * math.fsum(kl([p, 1 - p], [q, 1 - q]) for p, q in pairs) / divisor

    return over_logits(row)


def wsld(temperature: float) -> Reference:
    def row(z: list[float], v: list[float], y: int) -> float:
        mine, theirs = (-math.log(softmax(x, 1.0)[y]) for x in (z, v))
        soft = -math.fsum(
            p * math.log(q) for p, q in zip(softmax(v, temperature), softmax(z, temperature), strict=True)
        )
        return temperature**2 * (1 - math.exp(-mine / (theirs + 1e-7))) * soft

    return over_logits(row)


def random_targets(temperature: float) -> Reference:
    """Without noise."""

    def row(z: list[float], v: list[float], y: int) -> float:
        p = softmax([float(c == y) for c in range(len(z))], temperature)
        return -math.fsum(a * math.log(b) for a, b in zip(p, softmax(z, 1.0), strict=True))

    return over_logits(row)


def virtual_distribution(correct: float, temperature: float) -> Reference:
    def row(z: list[float], v: list[float], y: int) -> float:
        p = [correct if c == y else (1 - correct) / (len(z) - 1) for c in range(len(z))]
        powers = [a ** (1 / temperature) for a in p]
        return temperature**2 * kl([a / math.fsum(powers) for a in powers], softmax(z, temperature))

    return over_logits(row)


def virtual_probabilities(correct: float, temperature: float) -> Reference:
    def row(z: list[float], v: list[float], y: int) -> float:
        p = [correct if c == y else (1 - correct) / (len(z) - 1) for c in range(len(z))]
        return kl(softmax(p, temperature), softmax(z, 1.0))

    return over_logits(row)


def enhanced(z: list[float], v: list[float], y: int, exponent: float, temperature: float) -> float:
    terms = []
    for c, (p, q) in enumerate(zip(softmax(v, temperature), softmax(z, temperature), strict=True)):
        label = float(c == y)
        terms.append(((p + label) ** exponent - label) * math.log(q))
    return -math.fsum(terms)


def ofa(exponent: float, temperature: float) -> Reference:
    return over_logits(lambda z, v, y: enhanced(z, v, y, exponent, temperature))


def ofa_stages(exponents: dict[str, float], temperature: float) -> Reference:
    """Reads the heads of the term, and does the rest itself."""

    def reference(term: Term, student: Outputs, teacher: Outputs, batch: Batch) -> list[float]:
        sums = [0.0] * len(batch)
        for role, exponent in exponents.items():
            said = term.get_submodule(f"heads.{role}")(student.feature(role)).tolist()
            rows = zip(said, teacher.logits.tolist(), batch.labels.tolist(), strict=True)
            for i, (z, v, y) in enumerate(rows):
                sums[i] += enhanced(z, v, y, exponent, temperature)
        return sums

    return reference


def instances(temperatures: list[float]) -> Reference:
    return over_logits(lambda z, v, y: math.fsum(t**2 * kl(softmax(v, t), softmax(z, t)) for t in temperatures))


def gram(rows: Rows) -> Rows:
    return [[math.fsum(a * b for a, b in zip(x, y, strict=True)) for y in rows] for x in rows]


def squares(first: Rows, second: Rows) -> list[float]:
    pairs = zip(gram(first), gram(second), strict=True)
    return [math.fsum((a - b) ** 2 for a, b in zip(x, y, strict=True)) for x, y in pairs]


def columns(rows: Rows) -> Rows:
    return [list(column) for column in zip(*rows, strict=True)]


def median(values: list[float]) -> float:
    ordered, n = sorted(values), len(values)
    return (ordered[(n - 1) // 2] + ordered[n // 2]) / 2


def samples(temperatures: list[float]) -> Reference:
    def reference(term: Term, student: Outputs, teacher: Outputs, batch: Batch) -> list[float]:
        sums = [0.0] * len(batch)
        for t in temperatures:
            q, p = ([softmax(row, t) for row in o.logits.tolist()] for o in (student, teacher))
            sums = [a + b for a, b in zip(sums, squares(p, q), strict=True)]
        return sums

    return reference


def classes(temperatures: list[float], keep: str) -> Reference:
    def reference(term: Term, student: Outputs, teacher: Outputs, batch: Batch) -> list[float]:
        said = [math.fsum(c) for c in columns([softmax(row, 1.0) for row in teacher.logits.tolist()])]
        kept = [float(value <= median(said)) for value in said]
        if keep == "all":
            kept = [1.0] * len(kept)
        if keep == "share":
            kept = [math.fsum(kept) / len(kept)] * len(kept)
        total = 0.0
        for t in temperatures:
            q, p = (columns([softmax(row, t) for row in o.logits.tolist()]) for o in (student, teacher))
            total += math.fsum(k * s for k, s in zip(kept, squares(p, q), strict=True)) / len(kept)
        return [total] * len(batch)

    return reference


def least_confident(inner: Reference, keep: str) -> Reference:
    def reference(term: Term, student: Outputs, teacher: Outputs, batch: Batch) -> list[float]:
        sure = [max(softmax(row, 1.0)) for row in teacher.logits.tolist()]
        kept = [float(value <= median(sure)) for value in sure]
        if keep == "share":
            kept = [math.fsum(kept) / len(kept)] * len(kept)
        return [k * row for k, row in zip(kept, inner(term, student, teacher, batch), strict=True)]

    return reference


def regions(features: Tensor, scales: list[int]) -> list[Rows]:
    """Means of equal blocks, region by region: for each sample, rows of channels."""
    out = []
    for maps in features.tolist():
        rows = []
        for s in scales:
            h, w = len(maps[0]) // s, len(maps[0][0]) // s
            for i in range(s):
                for j in range(s):
                    cells = [[m[i * h + a][j * w + b] for a in range(h) for b in range(w)] for m in maps]
                    rows.append([math.fsum(c) / len(c) for c in cells])
        out.append(rows)
    return out


def sdd(inner: Callable[[list[float], list[float], int], float], scales: list[int], weight: float) -> Reference:
    """Works where the scales divide the maps' sides."""

    def ask(head: torch.nn.Linear, parts: Rows) -> Rows:
        rows = zip(head.weight.tolist(), head.bias.tolist(), strict=True)
        said = [[math.fsum(w * x for w, x in zip(ws, part, strict=True)) + b for part in parts] for ws, b in rows]
        return columns(said)

    def best(row: list[float]) -> int:
        return max(range(len(row)), key=row.__getitem__)

    def reference(term: Term, student: Outputs, teacher: Outputs, batch: Batch) -> list[float]:
        heads = term._heads
        parts = [regions(o.feature("final"), scales) for o in (student, teacher)]
        out = []
        for n, (whole, y) in enumerate(zip(teacher.logits.tolist(), batch.labels.tolist(), strict=True)):
            total = 0.0
            mine, theirs = (ask(head, side[n]) for head, side in zip(heads, parts, strict=True))
            for z, v in zip(mine, theirs, strict=True):
                apart = (best(v) == y) != (best(whole) == y)
                total += (weight if apart else 1.0) * inner(z, v, y)
            out.append(total / len(mine))
        return out

    return reference


def kd_row(temperature: float) -> Callable[[list[float], list[float], int], float]:
    return lambda z, v, y: temperature**2 * kl(softmax(v, temperature), softmax(z, temperature))


def standardized(inner: Reference) -> Reference:
    """Another reference, on logits of mean 0 and deviation 1."""

    def standard(row: list[float]) -> list[float]:
        mean = math.fsum(row) / len(row)
        deviation = math.sqrt(math.fsum((z - mean) ** 2 for z in row) / (len(row) - 1))
        return [(z - mean) / (1e-7 + deviation) for z in row]

    def reference(term: Term, student: Outputs, teacher: Outputs, batch: Batch) -> list[float]:
        both = [
            Outputs(torch.tensor([standard(row) for row in o.logits.tolist()], dtype=torch.float64))
            for o in (student, teacher)
        ]
        return inner(term, *both, batch)

    return reference
