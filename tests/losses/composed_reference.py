"""Composed distillers again, as loops over Python floats; their layers are read from the term."""

import math
from typing import Any

import torch
from feature_references import smaller
from loss_references import Reference, dot, huber, kl, mean_square, scaled, softmax
from torch import Tensor

from kdx.core.batch import Batch
from kdx.core.outputs import Outputs

Maps = list[list[list[list[float]]]]  # [B][C][H][W]
Table = list[list[list[float]]]  # [B][R][D]


def mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)


def flattened(image: list[list[list[float]]]) -> list[float]:
    return [v for channel in image for row in channel for v in row]


def attend(maps: Maps, kind: str) -> Maps:
    out = []
    for image in maps:
        channels, height, width = len(image), len(image[0]), len(image[0][0])
        if kind == "energy":
            out.append(
                [[[mean([c[i][j] ** 2 for c in image]) for j in range(width)] for i in range(height)]],
            )
            continue
        factor = [[[1.0] * width for _ in range(height)] for _ in range(channels)]
        if kind == "spatial":
            scores = [mean([abs(c[i][j]) for c in image]) for i in range(height) for j in range(width)]
            shares = softmax(scores, 0.5)
            factor = [
                [[math.sqrt(len(scores) * shares[i * width + j]) for j in range(width)] for i in range(height)]
            ] * channels
        if kind == "channel":
            shares = softmax([mean([abs(v) for row in c for v in row]) for c in image], 0.5)
            factor = [[[math.sqrt(channels * s)] * width for _ in range(height)] for s in shares]
        out.append(
            [
                [[c[i][j] * f[i][j] for j in range(width)] for i in range(height)]
                for c, f in zip(image, factor, strict=True)
            ]
        )
    return out


def scope(maps: Maps, kind: str) -> Maps:
    if kind == "examples":
        flat = [flattened(image) for image in maps]
        return [[[[dot(a, b)]] for b in flat] for a in flat]
    out = []
    for image in maps:
        height, width = len(image[0]), len(image[0][0])
        if kind == "channels":
            flat = [[v for row in c for v in row] for c in image]
            out.append([[[dot(a, b) / (height * width)] for b in flat] for a in flat])
        elif kind.startswith("pool"):
            r = int(kind[-1])
            blocks = [(i, j) for i in range(height // r) for j in range(width // r)]
            out.append(
                [
                    [
                        [max(c[i * r + a][j * r + b] for a in range(r) for b in range(r)) for j in range(width // r)]
                        for i in range(height // r)
                    ]
                    for c in image
                    if blocks
                ]
            )
        elif kind.startswith("patches"):
            s = int(kind[-1])
            h, w = height // s, width // s
            out.append(
                [
                    [[c[p * h + a][q * w + b] for q in range(s)] for p in range(s)]
                    for c in image
                    for a in range(h)
                    for b in range(w)
                ]
            )
        else:
            out.append(image)
    return out


def rows(maps: Maps, kind: str, temperature: float | None) -> Table:
    numbers = [[[v for row in c for v in row] for c in image] for image in maps]  # [B][C][P]
    size, channels, places = len(numbers), len(numbers[0]), len(numbers[0][0])
    if kind == "standardise":
        for c in range(channels):
            values = [numbers[b][c][p] for b in range(size) for p in range(places)]
            centre = mean(values)
            spread = math.sqrt(mean([(v - centre) ** 2 for v in values]))
            for b in range(size):
                numbers[b][c] = [(v - centre) / spread for v in numbers[b][c]]
    if kind == "min_max":
        for b in range(size):
            low, high = min(map(min, numbers[b])), max(map(max, numbers[b]))
            numbers[b] = [[(v - low) / (high - low) for v in c] for c in numbers[b]]
    if kind == "unit_examples":
        for c in range(channels):
            for p in range(places):
                column = scaled([numbers[b][c][p] for b in range(size)])
                for b in range(size):
                    numbers[b][c][p] = column[b]
    if kind in ("flatten", "unit"):
        table = [[[v for c in image for v in c]] for image in numbers]
    elif kind in ("by_channel", "unit_positions", "softmax_positions"):
        table = numbers
    else:
        table = [[[image[c][p] for c in range(channels)] for p in range(places)] for image in numbers]
    if temperature is not None:
        return [[softmax(row, temperature) for row in image] for image in table]
    if kind in ("unit", "unit_channels", "unit_positions"):
        return [[scaled(row) for row in image] for image in table]
    return table


def correlation(a: list[float], b: list[float]) -> float:
    return dot(*(scaled([v - mean(x) for v in x]) for x in (a, b)))


def distances(mine: Table, theirs: Table, kind: str) -> list[float]:
    if kind == "pearson_both":
        both = (distances(mine, theirs, part) for part in ("pearson", "pearson_examples"))
        return [a + b for a, b in zip(*both, strict=True)]
    if kind == "pearson_examples":
        places = [(r, d) for r in range(len(mine[0])) for d in range(len(mine[0][0]))]
        gaps = [1 - correlation(*([image[r][d] for image in side] for side in (mine, theirs))) for r, d in places]
        return [mean(gaps)] * len(mine)
    one: Any = {
        "l1": lambda a, b: mean([abs(x - y) for x, y in zip(a, b, strict=True)]),
        "mse": mean_square,
        "smooth_l1": lambda a, b: mean([huber(x - y) for x, y in zip(a, b, strict=True)]),
        "euclidean": math.dist,
        "cosine": lambda a, b: 1 - dot(scaled(a), scaled(b)),
        "pearson": lambda a, b: 1 - correlation(a, b),
        "kl": lambda a, b: kl(b, a),
    }[kind]
    return [mean([one(a, b) for a, b in zip(*pair, strict=True)]) for pair in zip(mine, theirs, strict=True)]


def as_maps(feature: Tensor) -> Tensor:
    if feature.ndim == 3:
        return feature.permute(0, 2, 1)[..., None]
    return feature if feature.ndim == 4 else feature[:, :, None, None]


def values(term: Any, mine: Tensor, theirs: Tensor) -> list[float]:
    chain = term.chain
    pair = as_maps(mine), as_maps(theirs)
    if chain.scope not in ("examples", "channels"):
        together = [smaller(a, b) for a, b in zip(*pair, strict=True)]
        pair = torch.stack([a for a, _ in together]), torch.stack([b for _, b in together])
    tables = [
        rows(scope(attend(side.tolist(), chain.attention), chain.scope), chain.normalise, chain.temperature)
        for side in pair
    ]
    factor = 1.0 if chain.temperature is None else chain.temperature**2
    return [factor * v for v in distances(tables[0], tables[1], chain.distance)]


def composed(term: Any, student: Outputs, teacher: Outputs, batch: Batch) -> list[float]:
    """The sum over the term's pairs of features."""
    if term.reads_logits:
        return values(term, student.logits, teacher.logits)
    with torch.no_grad():
        found = [
            values(term, layer(student.feature(mine)), teacher.feature(theirs))
            for layer, (mine, theirs) in zip(term.aligns, term.pairs, strict=True)
        ]
    return [math.fsum(row) for row in zip(*found, strict=True)]


REFERENCE: Reference = composed
