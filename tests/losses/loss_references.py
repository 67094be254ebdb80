"""Every loss again, as loops over Python floats: slow, plain, and written from the equations alone."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from kdx.core.batch import Batch
from kdx.core.outputs import Outputs
from kdx.losses.base.term import Term

Reference = Callable[[Term, Outputs, Outputs, Batch], list[float]]
Rows = list[list[float]]


def softmax(row: list[float], temperature: float) -> list[float]:
    top = max(row)
    exps = [math.exp((z - top) / temperature) for z in row]
    return [e / math.fsum(exps) for e in exps]


def kl(p: list[float], q: list[float]) -> float:
    return math.fsum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


def huber(difference: float) -> float:
    return difference**2 / 2 if abs(difference) < 1 else abs(difference) - 0.5


def scaled(vector: list[float]) -> list[float]:
    length = math.sqrt(math.fsum(x * x for x in vector))
    return [x / length for x in vector]


def dot(a: list[float], b: list[float]) -> float:
    return math.fsum(x * y for x, y in zip(a, b, strict=True))


def mean_square(a: list[float], b: list[float]) -> float:
    return math.fsum((x - y) ** 2 for x, y in zip(a, b, strict=True)) / len(a)


def over_logits(row: Callable[[list[float], list[float], int], float]) -> Reference:
    """A reference that goes sample by sample over (student's logits, teacher's logits, label)."""

    def reference(term: Term, student: Outputs, teacher: Outputs, batch: Batch) -> list[float]:
        rows = zip(student.logits.tolist(), teacher.logits.tolist(), batch.labels.tolist(), strict=True)
        return [row(z, v, y) for z, v, y in rows]

    return reference


def over_features(role: str, loss: Callable[[Rows, Rows], list[float]]) -> Reference:
    """A reference over the flattened features of a role, as rows of the batch."""

    def reference(term: Term, student: Outputs, teacher: Outputs, batch: Batch) -> list[float]:
        return loss(student.feature(role).flatten(1).tolist(), teacher.feature(role).flatten(1).tolist())

    return reference


def cross_entropy(label_smoothing: float) -> Reference:
    def row(z: list[float], v: list[float], y: int) -> float:
        target = [label_smoothing / len(z) + (1 - label_smoothing) * (c == y) for c in range(len(z))]
        return -math.fsum(t * math.log(q) for t, q in zip(target, softmax(z, 1.0), strict=True))

    return over_logits(row)


def kd(temperature: float, divisor: int = 1) -> Reference:
    return over_logits(lambda z, v, y: temperature**2 * kl(softmax(v, temperature), softmax(z, temperature)) / divisor)


def soft_cross_entropy(temperature: float) -> Reference:
    def row(z: list[float], v: list[float], y: int) -> float:
        pairs = zip(softmax(v, temperature), softmax(z, temperature), strict=True)
        return -(temperature**2) * math.fsum(p * math.log(q) for p, q in pairs)

    return over_logits(row)


def without(row: list[float], y: int) -> list[float]:
    return row[:y] + row[y + 1 :]


def dkd(target_weight: float, nontarget_weight: float, temperature: float) -> Reference:
    def row(z: list[float], v: list[float], y: int) -> float:
        p, q = softmax(v, temperature)[y], softmax(z, temperature)[y]
        target = kl([p, 1 - p], [q, 1 - q])
        nontarget = kl(softmax(without(v, y), temperature), softmax(without(z, y), temperature))
        return temperature**2 * (target_weight * target + nontarget_weight * nontarget)

    return over_logits(row)


def logit_mse(factor: float) -> Reference:
    return over_logits(lambda z, v, y: factor * math.fsum((a - b) ** 2 for a, b in zip(z, v, strict=True)))


def fitnet(role: str) -> Reference:
    def reference(term: Term, student: Outputs, teacher: Outputs, batch: Batch) -> list[float]:
        adapted = term.get_submodule("adapter")(student.feature(role)).flatten(1).tolist()
        rows = zip(adapted, teacher.feature(role).flatten(1).tolist(), strict=True)
        return [mean_square(mine, theirs) for mine, theirs in rows]

    return reference


def pooled(image: list[list[float]], height: int, width: int) -> list[list[float]]:
    """Average over equal blocks."""
    h, w = len(image) // height, len(image[0]) // width
    blocks = [
        [[image[i * h + a][j * w + b] for a in range(h) for b in range(w)] for j in range(width)] for i in range(height)
    ]
    return [[math.fsum(block) / len(block) for block in row] for row in blocks]


def pooled_maps(a: Tensor, b: Tensor) -> tuple[list[Rows], list[Rows]]:
    """Two samples' maps [C, H, W] as nested lists of the smaller size."""
    height, width = min(a.shape[1], b.shape[1]), min(a.shape[2], b.shape[2])
    return tuple([pooled(channel, height, width) for channel in x.tolist()] for x in (a, b))  # type: ignore[return-value]


def attention(maps: list[Rows], power: float) -> list[float]:
    height, width = len(maps[0]), len(maps[0][0])
    places = [(i, j) for i in range(height) for j in range(width)]
    return scaled([math.fsum(abs(m[i][j]) ** power for m in maps) / len(maps) for i, j in places])


def at(roles: list[str], power: float) -> Reference:
    def reference(term: Term, student: Outputs, teacher: Outputs, batch: Batch) -> list[float]:
        sums = [0.0] * len(batch)
        for role in roles:
            for i, pair in enumerate(zip(student.feature(role), teacher.feature(role), strict=True)):
                mine, theirs = pooled_maps(*pair)
                sums[i] += mean_square(attention(mine, power), attention(theirs, power))
        return sums

    return reference


def sp(mine: Rows, theirs: Rows) -> list[float]:
    return [mean_square(*(scaled([dot(f[i], other) for other in f]) for f in (mine, theirs))) for i in range(len(mine))]


def relative_distances(rows: Rows) -> Rows:
    raw = [[math.dist(a, b) for b in rows] for a in rows]
    positive = [d for row in raw for d in row if d > 0]
    return [[d * len(positive) / math.fsum(positive) for d in row] for row in raw]


def rkd_distance(mine: Rows, theirs: Rows) -> list[float]:
    pairs = zip(relative_distances(mine), relative_distances(theirs), strict=True)
    return [math.fsum(huber(a - b) for a, b in zip(*pair, strict=True)) / len(mine) for pair in pairs]


def cosine_at(rows: Rows, i: int, j: int, k: int) -> float:
    rays = [[a - b for a, b in zip(rows[other], rows[i], strict=True)] for other in (j, k)]
    return 0.0 if i in (j, k) else dot(scaled(rays[0]), scaled(rays[1]))


def rkd_angle(mine: Rows, theirs: Rows) -> list[float]:
    n = range(len(mine))
    return [
        math.fsum(huber(cosine_at(mine, i, j, k) - cosine_at(theirs, i, j, k)) for j in n for k in n) / len(mine) ** 2
        for i in n
    ]


def correlation(a: list[float], b: list[float]) -> float:
    return dot(*(scaled([x - math.fsum(v) / len(v) for x in v]) for v in (a, b)))


def dist(inter_weight: float, intra_weight: float, temperature: float) -> Reference:
    def reference(term: Term, student: Outputs, teacher: Outputs, batch: Batch) -> list[float]:
        q, p = ([softmax(row, temperature) for row in o.logits.tolist()] for o in (student, teacher))
        columns = [1 - correlation([r[c] for r in q], [r[c] for r in p]) for c in range(len(q[0]))]
        intra = math.fsum(columns) / len(columns)
        rows = [1 - correlation(a, b) for a, b in zip(q, p, strict=True)]
        return [temperature**2 * (inter_weight * row + intra_weight * intra) for row in rows]

    return reference


def standardized_kd(temperature: float) -> Reference:
    def standard(row: list[float]) -> list[float]:
        mean = math.fsum(row) / len(row)
        deviation = math.sqrt(math.fsum((z - mean) ** 2 for z in row) / (len(row) - 1))
        return [(z - mean) / (1e-7 + deviation) for z in row]

    return over_logits(
        lambda z, v, y: temperature**2 * kl(softmax(standard(v), temperature), softmax(standard(z), temperature))
    )


def nkd(nontarget_weight: float, temperature: float) -> Reference:
    def row(z: list[float], v: list[float], y: int) -> float:
        p, q = (softmax(without(x, y), temperature) for x in (v, z))
        rest = -(temperature**2) * math.fsum(a * math.log(b) for a, b in zip(p, q, strict=True))
        return -softmax(v, 1.0)[y] * math.log(softmax(z, 1.0)[y]) + nontarget_weight * rest

    return over_logits(row)


def pkt(mine: Rows, theirs: Rows) -> list[float]:
    def neighbours(rows: Rows, i: int) -> list[float]:
        similar = [(dot(scaled(rows[i]), scaled(other)) + 1) / 2 for other in rows]
        return [s / math.fsum(similar) for s in similar]

    n = range(len(mine))
    pairs = [zip(neighbours(mine, i), neighbours(theirs, i), strict=True) for i in n]
    return [math.fsum(p * math.log((p + 1e-7) / (q + 1e-7)) for q, p in pair) / len(mine) for pair in pairs]


def nst(roles: list[str]) -> Reference:
    def kernel(a: Rows, b: Rows) -> float:
        return math.fsum(dot(x, y) ** 2 for x in a for y in b) / (len(a) * len(b))

    def reference(term: Term, student: Outputs, teacher: Outputs, batch: Batch) -> list[float]:
        sums = [0.0] * len(batch)
        for role in roles:
            for i, pair in enumerate(zip(student.feature(role), teacher.feature(role), strict=True)):
                s, t = ([scaled([x for row in m for x in row]) for m in maps] for maps in pooled_maps(*pair))
                sums[i] += kernel(t, t) + kernel(s, s) - 2 * kernel(s, t)
        return sums

    return reference


def vid(roles: list[str]) -> Reference:
    """Reads the networks of the term, and does the rest itself. Works where the student's map is the larger."""

    def reference(term: Term, student: Outputs, teacher: Outputs, batch: Batch) -> list[float]:
        sums = [0.0] * len(batch)
        for i, role in enumerate(roles):
            regressor, target = term.get_submodule(f"regressors.{i}"), teacher.feature(role)
            small = torch.nn.functional.adaptive_avg_pool2d(student.feature(role), target.shape[2:])
            predicted = regressor.get_submodule("mean")(small).tolist()
            variances = [math.log1p(math.exp(a)) + 1e-5 for a in regressor.get_parameter("raw_variance").tolist()]
            for n, (mine, theirs) in enumerate(zip(predicted, target.tolist(), strict=True)):
                cells = [
                    (a - b) ** 2 / variance + math.log(variance)
                    for m, t, variance in zip(mine, theirs, variances, strict=True)
                    for r, q in zip(m, t, strict=True)
                    for a, b in zip(r, q, strict=True)
                ]
                sums[n] += math.fsum(cells) / len(cells) / 2
        return sums

    return reference


def random_outputs(
    size: int, classes: int, shapes: dict[str, tuple[int, ...]], dtype: torch.dtype = torch.float64
) -> Outputs:
    features = {role: torch.randn(size, *shape, dtype=dtype) for role, shape in shapes.items()}
    return Outputs(2 * torch.randn(size, classes, dtype=dtype), features)
