"""The facts of a data set that `kdx data` prints."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kdx.commands.data_picture import draw
from kdx.commands.data_text import lengths, samples
from kdx.core.spec import Images, Tokens
from kdx.data.content import UNREADABLE, digest, inputs, is_known, is_repeated
from kdx.data.dataset import Dataset, WithClasses
from kdx.data.scenes import SceneDataset
from kdx.data.sets import DataError, ExampleSet, ImageSet
from kdx.data.text.dataset import TextDataset
from kdx.data.text.token_set import TokenSet

CLOSE = 0.005  # configured and measured statistics that differ by less are equal up to rounding and cropping
LISTED = 3  # most examples that a line names


@dataclass
class Part:
    """One split, read once.

    Attributes:
        name: Its name for people.
        data: The examples.
        digests: Of each input, uint64 [N].
        mean, std: Of each channel in the set's unit, float64 [C]; over all readable inputs.
        constant: Positions of inputs whose values are all equal.
        unreadable: Error of each input that cannot be read, by position.
    """

    name: str
    data: ExampleSet
    digests: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    constant: list[int]
    unreadable: dict[int, str]


def describe(dataset: Dataset, folder: Path) -> Iterator[str]:
    """The lines about a data set. Draws samples of images into the folder.

    Raises:
        DataError: The data is missing, or contradicts the config.
        OSError: The picture cannot be written.
    """
    train, test, val = dataset.pools()
    shape, task = "x".join(map(str, dataset.inputs.shape)), dataset.task
    what = f"texts of up to {shape} tokens" if isinstance(dataset.inputs, Tokens) else f"inputs {shape}"
    yield f"{dataset.name}: {task.num_outputs} {task.kind}, {what}"
    parts = []
    for name, data in (("training", train), ("validation", val), ("test", test)):
        if data is not None:
            parts.append(_read(name, data))
            yield _row(name, f"{len(data)} examples{_targets(data, _class_names(dataset))}")
    used = len(dataset.share(train))
    if used < len(train):
        yield _row("", f"{used} of the training examples are used (dataset.fraction, dataset.max_examples)")
    yield from _rows("duplicates", _duplicates(parts, _class_names(dataset)))
    yield from _rows("inputs", _statistics(dataset, parts[0]))
    yield from _rows("odd", _odd(parts))
    if isinstance(train, TokenSet) and isinstance(dataset, TextDataset):
        yield from _rows("samples", samples(dataset, train, _class_names(dataset)))
    if isinstance(train, ImageSet):
        file = folder / f"{dataset.name.replace('/', '_')}.png"
        yield _row("pictures", str(draw(train, _class_names(dataset), file)))


def _row(head: str, text: str) -> str:
    return f"  {head:<12}{text}"


def _rows(head: str, lines: Iterator[str]) -> Iterator[str]:
    found = list(lines) or ["none"]
    yield from (_row(head if not i else "", line) for i, line in enumerate(found))


def _read(name: str, data: ExampleSet) -> Part:
    unreadable: dict[int, str] = {}
    constant: list[int] = []
    digests = np.full(len(data), UNREADABLE)
    total, squares, count = np.zeros(1), np.zeros(1), 0

    def note(index: int, error: DataError) -> None:
        unreadable[index] = str(error)

    for index, row in enumerate(inputs(data, note)):
        if row is None:
            continue
        digests[index] = digest(row)
        if isinstance(data, TokenSet):
            continue  # ids of tokens have no mean
        values = row.reshape(-1, row.shape[-1]).astype(np.float64) if row.ndim == 3 else row[None].astype(np.float64)
        total, squares, count = total + values.sum(0), squares + (values**2).sum(0), count + len(values)
        if row.ndim == 3 and (values == values[0]).all():
            constant.append(index)
    mean = total / max(count, 1)
    return Part(
        name, data, digests, mean, np.sqrt(np.maximum(squares / max(count, 1) - mean**2, 0)), constant, unreadable
    )


def _class_names(dataset: Dataset) -> Sequence[str]:
    return dataset.class_names() if isinstance(dataset, WithClasses | SceneDataset) else ()


def _targets(data: ExampleSet, names: Sequence[str]) -> str:
    if data.has_classes:
        counts = data.labels.bincount(minlength=len(names))
        low, high = int(counts.argmin()), int(counts.argmax())
        if counts[low] == counts[high]:
            return f", {int(counts[low])} of each class"
        return f", from {int(counts[low])} ({names[low]}) to {int(counts[high])} ({names[high]}) a class"
    if "box_labels" in data.targets:
        labels = data.targets["box_labels"]
        counts = labels[labels >= 0].bincount(minlength=len(names)).tolist()
        low, high = (pick(range(len(names)), key=counts.__getitem__) for pick in (min, max))
        most, empty = int((labels >= 0).sum(1).max()), int((labels < 0).all(1).sum())
        return (
            f", {sum(counts)} objects, from {counts[low]} ({names[low]}) to {counts[high]} ({names[high]}) a class; at "
            f"most {most} in an image, {empty} images without"
        )
    if "presence" in data.targets:
        share = data.targets["presence"].float().mean(0)
        return f", a label holds for {float(share.min()):.1%} to {float(share.max()):.1%} of them"
    values = data.targets["values"].double() if "values" in data.targets else None
    if values is None:
        return ""
    return f", standardised targets with mean {_numbers(values.mean(0))} and deviation {_numbers(values.std(0))}"


def _duplicates(parts: Sequence[Part], names: Sequence[str]) -> Iterator[str]:
    for part in parts:
        repeated = is_repeated(part.digests).nonzero()[0]
        if len(repeated):
            other = _places(part.digests, part.digests[repeated])
            yield f"{part.name}: {len(repeated)} repeat an earlier one{_relabelled(part, repeated, part, other, names)}"
    for i, part in enumerate(parts):
        for later in parts[i + 1 :]:
            shared = is_known(later.digests, part.digests).nonzero()[0]
            if len(shared):
                other = _places(part.digests, later.digests[shared])
                said = _relabelled(later, shared, part, other, names)
                yield f"{later.name}: {len(shared)} are in the {part.name} set as well{said}"
    if (
        any(is_repeated(part.digests).any() for part in parts[:1])
        or is_known(parts[-1].digests, parts[0].digests).any()
    ):
        yield "dataset.drop_duplicates=true leaves such examples out of the training set"


def _places(digests: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """First position of each wanted digest."""
    values, first = np.unique(digests, return_index=True)
    return first[np.searchsorted(values, wanted)]


def _relabelled(part: Part, rows: np.ndarray, other: Part, places: np.ndarray, names: Sequence[str]) -> str:
    """How many of the duplicates have another target, and the first of them."""
    if not part.data.has_classes:
        return ""
    mine = part.data.labels[torch.from_numpy(rows)].tolist()
    theirs = other.data.labels[torch.from_numpy(places)].tolist()
    differ = [i for i in range(len(rows)) if mine[i] != theirs[i]]
    if not differ:
        return ", none with another label"
    shown = [
        f"{part.name} {rows[i]} ({names[mine[i]]}) = {other.name} {places[i]} ({names[theirs[i]]})"
        for i in differ[:LISTED]
    ]
    return f", {len(differ)} with another label: {', '.join(shown)}{', ...' if len(differ) > LISTED else ''}"


def _statistics(dataset: Dataset, train: Part) -> Iterator[str]:
    facts = dataset.inputs
    if isinstance(train.data, TokenSet):
        yield from lengths(train.data)
        return
    if not isinstance(facts, Images):
        yield f"mean {_numbers(train.mean)}, deviation {_numbers(train.std)}"
        return
    assert isinstance(train.data, ImageSet)
    mean, std = train.mean / train.data.scale, train.std / train.data.scale
    yield f"mean {_numbers(mean)}, deviation {_numbers(std)} of all training pixels, where white is 1"
    apart = max(abs(a - b) for pair in ((mean, facts.mean), (std, facts.std)) for a, b in zip(*pair, strict=True))
    if apart > CLOSE:
        given = f"dataset.mean={_numbers(facts.mean)} and dataset.std={_numbers(facts.std)}"
        yield f"configured are {given}, up to {apart:.3f} away; measured on the images after resizing and cropping"


def _odd(parts: Sequence[Part]) -> Iterator[str]:
    for part in parts:
        if part.unreadable:
            yield f"{part.name}: {len(part.unreadable)} cannot be read: {next(iter(part.unreadable.values()))}"
        if part.constant:
            shown = ", ".join(map(str, part.constant[:LISTED]))
            yield f"{part.name}: {len(part.constant)} have one value everywhere: number {shown}"


def _numbers(values: Sequence[float] | np.ndarray | Tensor) -> str:
    numbers = [float(v) for v in values]
    shown = ",".join(f"{v:.4g}" for v in numbers[:4])
    return f"[{shown}{',...' if len(numbers) > 4 else ''}]"
