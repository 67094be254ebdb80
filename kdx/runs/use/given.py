"""A user's files as inputs of a trained network: images, or lines of text."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from kdx.core.batch import UNLABELLED
from kdx.core.errors import UserError, shown
from kdx.core.notice import notice
from kdx.core.pretrained import tokenizer_file
from kdx.core.spec import Images, Scenes, Tokens
from kdx.core.task import BOXES, PIXELS, TOKENS
from kdx.data.dataset import ImageDataset
from kdx.data.encoded import EncodedSet, ImageFiles
from kdx.data.sets import DataError, ExampleSet
from kdx.data.sources.walk import SUFFIXES, Skipped, images_in
from kdx.data.text.dataset import TextDataset, as_tokens
from kdx.data.text.delimited import Column, Delimited, DelimitedLabels, rows
from kdx.runs.use.stored import Stored

TABLES = (".tsv", ".csv")


@dataclass(frozen=True)
class Given:
    """Inputs without targets.

    Attributes:
        head: What `names` are: "file", "line".
        names: Name of each input.
        data: The inputs.
    """

    head: str
    names: Sequence[str]
    data: ExampleSet


def given_inputs(run: Stored, place: Path, text: Column | None, second: Column | None) -> Given:
    """Read images (a file, or all below a folder), or texts (a .txt with one a line, or a .tsv or .csv).

    Args:
        run: The run whose network reads them.
        place: The file or folder.
        text: Column of the texts in a .tsv or .csv; None takes the data set's.
        second: Column of the second text of pairs; None takes the data set's.

    Raises:
        UserError: The run's inputs or its task are others, or the files are missing or damaged.
    """
    name, inputs = run.dataset.name, run.dataset.inputs
    if run.task.kind in (BOXES, PIXELS, TOKENS) or isinstance(inputs, Scenes):
        raise UserError(f"kdx predict states classes, labels or values, and the task of {name} is {run.task.kind}")
    if not place.exists():
        raise UserError(f"{shown(str(place), 150)}: no such file or folder")
    if isinstance(inputs, Tokens) and isinstance(run.dataset, TextDataset):
        return _texts(run, run.dataset, inputs, place, text, second)
    if isinstance(inputs, Images) and isinstance(run.dataset, ImageDataset):
        if run.dataset.has_own_units:
            raise UserError(f"kdx predict reads images of 8 bits, and the inputs of {name} are floats of another scale")
        return _images(run, inputs, place)
    raise UserError(f"kdx predict reads images and texts, and the inputs of {name} are neither")


def _images(run: Stored, inputs: Images, place: Path) -> Given:
    if place.is_dir():
        skipped = Skipped()
        (paths,) = images_in([str(place)], skipped)
        skipped.report(str(place))
        if not paths:
            raise UserError(f"{shown(str(place), 150)} has no images ({', '.join(SUFFIXES)})")
    else:
        paths = [str(place)]
    channels, height, width = inputs.shape
    resize = resize_of(run, inputs)
    notice(f"images are resized to a short side of {resize}, and the central {height}x{width} is cropped")
    unlabelled = torch.full((len(paths),), UNLABELLED)
    return Given("file", paths, EncodedSet(ImageFiles(paths), unlabelled, (channels, height, width), resize))


def resize_of(run: Stored, inputs: Images) -> int:
    """Length of the short side of an image before its centre is cropped to the input size."""
    return int(run.config.dataset["resize"]) if "resize" in run.config.dataset else max(inputs.shape[1:])


def _texts(
    run: Stored, dataset: TextDataset, inputs: Tokens, place: Path, text: Column | None, second: Column | None
) -> Given:
    if place.is_dir():
        raise UserError(f"{shown(str(place), 150)} is a folder, and the network reads a .txt, .tsv or .csv file")
    if place.suffix.lower() in TABLES:
        numbers, first, other = _table(run, dataset, place, text, second)
    elif dataset.pairs:
        raise UserError(f"the network reads pairs of texts, columns of a .tsv or .csv; found {shown(place.name)}")
    elif text is not None or second is not None:
        raise UserError(f"text and second name columns of a .tsv or .csv, and {shown(place.name)} has none")
    else:
        numbers, first = _lines(place)
        other = None
    words = tokenizer_file(dataset.tokenizer, "dataset.tokenizer")
    unlabelled = torch.full((len(first),), UNLABELLED)
    return Given("line", numbers, as_tokens(first, other, unlabelled, inputs, words, None, place.name))


def _lines(place: Path) -> tuple[list[str], list[str]]:
    """The numbers and the texts of a file's lines; empty lines are left out."""
    try:
        whole = place.read_text("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{place} is no text file in UTF-8: {error}") from None
    numbered = [(str(number), line.strip()) for number, line in enumerate(whole, 1)]
    kept = [(number, line) for number, line in numbered if line]
    if not kept:
        raise UserError(f"{shown(str(place), 150)} has no line of text")
    if empty := len(whole) - (not whole[-1]) - len(kept):
        notice(f"{place.name}: {empty} empty line{'s' if empty > 1 else ''} left out")
    return [number for number, _ in kept], [line for _, line in kept]


def _table(
    run: Stored, dataset: TextDataset, place: Path, text: Column | None, second: Column | None
) -> tuple[list[str], list[str], list[str] | None]:
    """The numbers and the texts of a table's rows, and the second texts of pairs."""
    own = run.config.dataset
    named = isinstance(dataset, Delimited | DelimitedLabels)  # made-up texts have no columns
    first: Column = text if text is not None else own["text"] if named else 0
    if second is None and dataset.pairs:
        second = own["second"]
    if second is not None and not dataset.pairs:
        raise UserError(f"second={second}: the network reads single texts")
    columns = [column for column in (first, second) if column is not None]
    found = list(rows(place, columns))
    if not found:
        raise UserError(f"{shown(str(place), 150)} has no rows")
    others = None if second is None else [row[second] for _, row in found]
    return [str(number) for number, _ in found], [row[first] for _, row in found], others
