"""Losses on maps and vectors again, as loops; where a term has networks of its own, they are read from it."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from loss_references import Reference, Rows, attention, dot, kl, mean_square, pooled, scaled, softmax
from torch import Tensor, nn

from kdx.core.batch import Batch
from kdx.core.outputs import Outputs
from kdx.losses.base.term import Term


def flat(maps: Tensor) -> list[float]:
    return maps.flatten().tolist()


def each(role: str, loss: Callable[[Any, Tensor, Tensor], float], narrow: bool = False) -> Reference:
    """A reference that goes sample by sample over one pair of features."""

    def reference(term: Term, student: Outputs, teacher: Outputs, batch: Batch) -> list[float]:
        mine, theirs = student.feature(role), teacher.feature(role)
        theirs = theirs[:, : mine.shape[1]] if narrow else theirs
        return [loss(term, a, b) for a, b in zip(mine, theirs, strict=True)]

    return reference


def smaller(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Both maps [C, H, W] pooled to the smaller size, by loops over blocks."""
    height, width = min(a.shape[1], b.shape[1]), min(a.shape[2], b.shape[2])
    pair = [torch.tensor([pooled(c, height, width) for c in x.tolist()], dtype=x.dtype) for x in (a, b)]
    return pair[0], pair[1]


def through(network: Any, maps: Tensor) -> Tensor:
    """One sample through a network that treats samples alone."""
    with torch.no_grad():
        return network(maps[None])[0]


# ---- relations ----


def cc_rbf(gamma: float, order: int) -> Callable[[Rows, Rows], list[float]]:
    def kernel(a: list[float], b: list[float]) -> float:
        cosine = dot(scaled(a), scaled(b))
        series = [(2 * gamma) ** p / math.factorial(p) * cosine**p for p in range(order + 1)]
        return math.exp(-2 * gamma) * math.fsum(series)

    def loss(mine: Rows, theirs: Rows) -> list[float]:
        return [
            mean_square([kernel(mine[i], other) for other in mine], [kernel(theirs[i], other) for other in theirs])
            for i in range(len(mine))
        ]

    return loss


def neighbour_cc(term: Any, student: Outputs, teacher: Outputs, batch: Batch) -> list[float]:
    mine = term.embed_student(student.feature("pooled")).tolist()
    theirs = term.embed_teacher(teacher.feature("pooled")).tolist()
    size = len(batch)
    gaps = [[abs(a - b) for a, b in zip(*pair, strict=True)] for pair in zip(mine, theirs, strict=True)]
    rows = [0.0] * size
    for i in range(size - 1):
        for place in (i, i + 1):  # half of a pair each; the batch's mean is then that over pairs
            rows[place] += dot(gaps[i], gaps[i + 1]) / 2 * size / (size - 1)
    return rows


def crd(temperature: float, negatives: int) -> Reference:
    """With every example of another class as a negative."""

    def reference(term: Any, student: Outputs, teacher: Outputs, batch: Batch) -> list[float]:
        mine = [scaled(row) for row in term.embed_student(student.feature("pooled")).tolist()]
        theirs = [scaled(row) for row in term.embed_teacher(teacher.feature("pooled")).tolist()]
        labels = term.labels.tolist()
        noise = negatives / len(labels)
        total = [0.0] * len(batch)
        sides = [(mine, term.memory_teacher.tolist(), 0), (theirs, term.memory_student.tolist(), 1)]
        for embedded, memory, side in sides:
            constant = math.exp(float(term.log_constants[side]))
            for i, (vector, own) in enumerate(zip(embedded, batch.index.tolist(), strict=True)):
                density = [math.exp(dot(vector, row) / temperature) / constant for row in memory]
                others = [density[j] for j in range(len(labels)) if labels[j] != labels[own]]
                total[i] -= math.log(density[own] / (density[own] + noise))
                total[i] -= math.fsum(math.log(noise / (p + noise)) for p in others)
        return total

    return reference


# ---- maps ----


def ickd(term: Any, mine: Tensor, theirs: Tensor) -> float:
    a, b = ([channel.flatten().tolist() for channel in maps] for maps in (mine, theirs))
    rows = range(len(a))
    both = [[scaled([dot(maps[i], other) for other in maps]) for i in rows] for maps in (a, b)]
    return math.fsum(
        math.fsum((x - y) ** 2 for x, y in zip(*pair, strict=True)) for pair in zip(*both, strict=True)
    ) / len(a)


def embedded_ickd(role: str) -> Reference:
    def reference(term: Any, student: Outputs, teacher: Outputs, batch: Batch) -> list[float]:
        with torch.no_grad():
            mine = term.embed(student.feature(role))
        return [ickd(term, a, b) for a, b in zip(mine, teacher.feature(role), strict=True)]

    return reference


def cwd(temperature: float) -> Callable[[Any, Tensor, Tensor], float]:
    def loss(term: Any, mine: Tensor, theirs: Tensor) -> float:
        a, b = smaller(through(term.align, mine), theirs)
        parts = [kl(softmax(flat(t), temperature), softmax(flat(s), temperature)) for s, t in zip(a, b, strict=True)]
        return temperature**2 * math.fsum(parts) / len(parts)

    return loss


def skd(grid: int) -> Callable[[Any, Tensor, Tensor], float]:
    def loss(term: Any, mine: Tensor, theirs: Tensor) -> float:
        size = [min(grid, mine.shape[axis], theirs.shape[axis]) for axis in (1, 2)]
        both = []
        for maps in (mine, theirs):
            channels = [pooled(channel, *size) for channel in maps.tolist()]
            nodes = [scaled([c[i][j] for c in channels]) for i in range(size[0]) for j in range(size[1])]
            both.append([dot(a, b) for a in nodes for b in nodes])
        return mean_square(*both)

    return loss


def mgd(term: Any, mine: Tensor, theirs: Tensor) -> float:
    a, b = smaller(mine, theirs)
    generated = through(term.generate, through(term.align, a))
    return math.fsum((x - y) ** 2 for x, y in zip(flat(generated), flat(b), strict=True))


def map_mse(term: Any, mine: Tensor, theirs: Tensor) -> float:
    a, b = smaller(mine, theirs)
    return mean_square(flat(a), flat(b))


def catkd(side: int, normalize: bool = True, biased: bool = True) -> Reference:
    def reference(term: Any, student: Outputs, teacher: Outputs, batch: Batch) -> list[float]:
        rows = []
        for pair in zip(student.feature("final"), teacher.feature("final"), strict=True):
            seen = []
            for features, head in zip(pair, term._heads, strict=True):
                _, height, width = features.shape
                places = [(i, j) for i in range(height) for j in range(width)]
                weight, bias = head.weight.tolist(), [b * biased for b in head.bias.tolist()]
                values = {p: features[:, p[0], p[1]].tolist() for p in places}
                maps = [
                    [[dot(w, values[i, j]) + b for j in range(width)] for i in range(height)]
                    for w, b in zip(weight, bias, strict=True)
                ]
                cells = [[x for row in pooled(m, side, side) for x in row] for m in maps]
                seen.append([scaled(c) if normalize else c for c in cells])
            rows.append(math.fsum(mean_square(a, b) for a, b in zip(*seen, strict=True)) / len(seen[0]))
        return rows

    return reference


def srrl(role: str, feature_weight: float, logit_weight: float) -> Reference:
    def reference(term: Any, student: Outputs, teacher: Outputs, batch: Batch) -> list[float]:
        mine = student.feature(role)
        with torch.no_grad():
            connected = term.connector(mine if mine.ndim == 4 else mine[:, :, None, None])
        (head,) = term._head
        rows = []
        for maps, theirs, logits in zip(connected, teacher.feature("pooled"), teacher.logits, strict=True):
            vector = [math.fsum(flat(channel)) / channel.numel() for channel in maps]
            read = [dot(w, vector) + b for w, b in zip(head.weight.tolist(), head.bias.tolist(), strict=True)]
            features, outputs = mean_square(vector, theirs.tolist()), mean_square(read, logits.tolist())
            rows.append(feature_weight * features + logit_weight * outputs)
        return rows

    return reference


def semckd(student_roles: list[str], teacher_roles: list[str], columns: int, temperature: float) -> Reference:
    def among(feature: Tensor) -> Tensor:
        rows = feature.flatten(1).tolist()
        table = [[dot(a, b) for b in rows] + [0.0] * (columns - len(rows)) for a in rows]
        return torch.tensor(table, dtype=torch.float64)

    @torch.no_grad()
    def reference(term: Any, student: Outputs, teacher: Outputs, batch: Batch) -> list[float]:
        queries, keys = (
            [[scaled(row) for row in nn.Sequential(*embed)(among(f)).tolist()] for embed, f in zip(*both, strict=True)]
            for both in (
                (term.queries, [student.feature(role) for role in student_roles]),
                (term.keys, [teacher.feature(role) for role in teacher_roles]),
            )
        )
        rows = [0.0] * len(batch)
        for s, role in enumerate(student_roles):
            errors = []
            for t, other in enumerate(teacher_roles):
                pairs = [smaller(a, b) for a, b in zip(student.feature(role), teacher.feature(other), strict=True)]
                mine = term.regressors[s][t](torch.stack([a for a, _ in pairs]))
                errors.append([mean_square(flat(a), flat(b)) for a, (_, b) in zip(mine, pairs, strict=True)])
            for n in range(len(batch)):
                shares = softmax([dot(queries[s][n], key[n]) for key in keys], temperature)
                rows[n] += dot(shares, [e[n] for e in errors]) / len(student_roles)
        return rows

    return reference


def ft(role: str, compared: str) -> Reference:
    def reference(term: Any, student: Outputs, teacher: Outputs, batch: Batch) -> list[float]:
        with torch.no_grad():
            mine, theirs = term.translator(student.feature(role)), term.encoder(teacher.feature(role))
        rows = []
        for pair in zip(mine, theirs, strict=True):
            a, b = smaller(*pair)
            if compared == "attention":
                a, b = (attention(x.tolist(), 2.0) for x in (a, b))
            else:
                a, b = scaled(flat(a)), scaled(flat(b))
            rows.append(math.fsum(abs(x - y) for x, y in zip(a, b, strict=True)) / len(a))
        return rows

    return reference


def ab(roles: list[str], margin: float) -> Reference:
    def neuron(s: float, t: float) -> float:
        if t <= 0:
            return (s + margin) ** 2 if s > -margin else 0.0
        return (s - margin) ** 2 if s <= margin else 0.0

    def reference(term: Any, student: Outputs, teacher: Outputs, batch: Batch) -> list[float]:
        rows = [0.0] * len(batch)
        for i, role in enumerate(roles):
            with torch.no_grad():
                mine = term.connectors[i](student.feature(role))
            for n, (a, b) in enumerate(zip(mine, teacher.feature(role), strict=True)):
                total = math.fsum(neuron(s, t) for s, t in zip(flat(a), flat(b), strict=True))
                rows[n] += total / 2 ** (len(roles) - 1 - i)
        return rows

    return reference


def gaussian_margin(weight: float, bias: float) -> float:
    """E[x | x < 0] of a Gaussian."""
    std = abs(weight)
    below = 0.5 * math.erfc(bias / std / math.sqrt(2))
    if below <= 1e-3:
        return -3 * std
    return bias - std * math.exp(-((bias / std) ** 2) / 2) / math.sqrt(2 * math.pi) / below


def ofd(roles: list[str], norms: dict[str, torch.nn.BatchNorm2d]) -> Reference:
    def neuron(s: float, t: float, m: float) -> float:
        if t > 0:
            return (s - t) ** 2
        if t > m:
            return (s - t) ** 2 if s > t else 0.0
        return (s - m) ** 2 if s > m else 0.0

    def reference(term: Any, student: Outputs, teacher: Outputs, batch: Batch) -> list[float]:
        rows = [0.0] * len(batch)
        for i, role in enumerate(roles):
            pairs = [smaller(a, b) for a, b in zip(student.feature(role), teacher.feature(role), strict=True)]
            with torch.no_grad():
                mine = term.connectors[i](torch.stack([a for a, _ in pairs]))
            margins = [
                gaussian_margin(w, b) for w, b in zip(flat(norms[role].weight), flat(norms[role].bias), strict=True)
            ]
            for n, (a, (_, b)) in enumerate(zip(mine, pairs, strict=True)):
                cells = [
                    neuron(s, t, m)
                    for x, y, m in zip(a, b, margins, strict=True)
                    for s, t in zip(flat(x), flat(y), strict=True)
                ]
                rows[n] += math.fsum(cells) / 2 ** (len(roles) - 1 - i)
        return rows

    return reference


def fsp(roles: list[str]) -> Reference:
    """Shows as many of the teacher's channels as the student has."""

    def flows(shallow: Tensor, deep: Tensor) -> list[float]:
        a, b = smaller(shallow, deep)
        return [dot(flat(x), flat(y)) / x.numel() for y in b for x in a]

    def reference(term: Any, student: Outputs, teacher: Outputs, batch: Batch) -> list[float]:
        rows = [0.0] * len(batch)
        for first, second in itertools.pairwise(roles):
            for n in range(len(batch)):
                a, b = student.feature(first)[n], student.feature(second)[n]
                c, d = teacher.feature(first)[n, : len(a)], teacher.feature(second)[n, : len(b)]
                rows[n] += mean_square(flows(a, b), flows(c, d))
        return rows

    return reference


def kdsvd(roles: list[str]) -> Reference:
    """One direction, by numpy's decomposition; as many of the teacher's channels as the student has."""

    def right(maps: Tensor) -> list[list[float]]:
        _, _, vectors = np.linalg.svd(maps.flatten(1).T.numpy(), full_matrices=False)
        return vectors.tolist()

    def reference(term: Any, student: Outputs, teacher: Outputs, batch: Batch) -> list[float]:
        rows = []
        for n in range(len(batch)):
            layers = []
            for role in roles:
                mine = student.feature(role)[n]
                (target, *_), candidates = right(teacher.feature(role)[n, : len(mine)]), right(mine)[:4]
                target = [x * math.copysign(1, math.fsum(target)) for x in target]
                best = max(candidates, key=lambda c, target=target: abs(dot(c, target)))
                layers.append(([x * math.copysign(1, dot(best, target)) for x in best], target))
            total = 0.0
            for (a, c), (b, d) in itertools.pairwise(layers):
                for j in range(len(b)):
                    for i in range(len(a)):
                        total += (math.exp(-((b[j] - a[i]) ** 2) / 8) - math.exp(-((d[j] - c[i]) ** 2) / 8)) ** 2
            rows.append(total)
        return rows

    return reference


def hcl(mine: Tensor, theirs: Tensor) -> float:
    height = mine.shape[1]
    total, weights = mean_square(flat(mine), flat(theirs)), [1.0]
    for side in (side for side in (4, 2, 1) if side < height):
        weights.append(weights[-1] / 2)
        a, b = ([x for c in maps.tolist() for row in pooled(c, side, side) for x in row] for maps in (mine, theirs))
        total += weights[-1] * mean_square(a, b)
    return total / math.fsum(weights)


def reviewkd(roles: list[str]) -> Reference:
    """The fusion as the paper draws it: enlarge, put side by side, ask for shares, mix."""

    def as_map(feature: Tensor) -> Tensor:
        return feature if feature.ndim == 4 else feature[:, :, None, None]

    def nearest(x: Tensor, height: int, width: int) -> Tensor:
        rows = [i * x.shape[2] // height for i in range(height)]
        columns = [j * x.shape[3] // width for j in range(width)]
        return x[:, :, rows][:, :, :, columns]

    @torch.no_grad()
    def reference(term: Any, student: Outputs, teacher: Outputs, batch: Batch) -> list[float]:
        total, deeper = [0.0] * len(batch), torch.empty(0)
        for fusion, role in reversed(list(zip(term.fusions, roles, strict=True))):
            theirs = as_map(teacher.feature(role))
            x = fusion.reduce(as_map(student.feature(role)))
            if fusion.attention is not None:
                enlarged = nearest(deeper, *x.shape[2:])
                shares = torch.sigmoid(fusion.attention(torch.cat([x, enlarged], 1)))
                x = x * shares[:, 0, None] + enlarged * shares[:, 1, None]
            deeper = nearest(x, *theirs.shape[2:])
            for n, (a, b) in enumerate(zip(fusion.predict(deeper), theirs, strict=True)):
                total[n] += hcl(a, b)
        return total

    return reference
