"""Texts in files of delimited columns: TSV (tabs, no quotes) and CSV (commas, quotes)."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from kdx.core.errors import did_you_mean, shown
from kdx.core.ranges import Count
from kdx.data.dataset import missing
from kdx.data.sets import DataError
from kdx.data.text.dataset import LabelledText, MultiLabelText, Split, TextDataset, Texts

Column = str | Count


@dataclass(frozen=True, kw_only=True)
class _Delimited(TextDataset):
    """A folder of files with a row for each example.

    Attributes:
        root: Folder of all data sets.
        folder: The data set's folder in `root`.
        train, test: Files of the two splits, below the folder; `.csv` has commas and quotes, others tabs.
        val: File of the source's own validation split; None if it has none.
        text: Column of the text: its name in the first row, or its number from 0 in files without names.
        second: Column of the second text of pairs; None for single texts.
        label: Column of the label.
        names: Names of the classes, a list or a file with one a line; None where labels are numbers.
    """

    root: str
    folder: str
    train: str
    val: str | None
    test: str
    text: Column
    second: Column | None
    label: Column
    names: Sequence[str] | str | None

    @property
    def pairs(self) -> bool:
        return self.second is not None

    @property
    def has_own_val(self) -> bool:
        return self.val is not None

    def files(self) -> Mapping[str, Sequence[str]]:
        base = self._base
        named = [name for name in (self.train, self.val, self.test) if name is not None]
        named += [self.names] if isinstance(self.names, str) else []
        return {str(base): [str(base / name) for name in named if (base / name).is_file()]}

    def texts(self, split: Split) -> Texts:
        name = {"train": self.train, "val": self.val, "test": self.test}[split]
        assert name is not None
        path = self._base / name
        if not path.is_file():
            raise missing(path, f"the {split} split of {self.name}", "put the file there")
        first, second, labels = [], [], []
        for number, row in rows(path, [c for c in (self.text, self.second, self.label) if c is not None]):
            first.append(row[self.text])
            labels.append((number, row[self.label]))
            if self.second is not None:
                second.append(row[self.second])
        if not first:
            raise DataError(f"{path} has no rows")
        return Texts(first, second if self.pairs else None, self.targets(labels, path))

    def targets(self, labels: Sequence[tuple[int, str]], path: Path) -> Tensor | Mapping[str, Tensor]:
        """Targets of the rows of a file, each given by its line and its label."""
        raise NotImplementedError

    def known_names(self) -> list[str] | None:
        """Names of the classes; None where labels are numbers. Raises DataError if their file is missing."""
        if not isinstance(self.names, str):
            return None if self.names is None else list(self.names)
        path = self._base / self.names
        if not path.is_file():
            raise missing(path, f"the label names of {self.name}", "put the file there")
        return [line.strip() for line in path.read_text("utf-8").splitlines() if line.strip()]

    def _numbers(self, size: int) -> Mapping[str, int]:
        """Number of each class by its name, and by the digits of its number."""
        names = self.known_names()
        if names is not None and len(names) != size:
            raise DataError(f"dataset.num_classes is {size}, and dataset.names has {len(names)} names")
        return {str(i): i for i in range(size)} | {name: i for i, name in enumerate(names or ())}

    @property
    def _base(self) -> Path:
        return Path(self.root).expanduser() / self.folder


@dataclass(frozen=True, kw_only=True)
class Delimited(_Delimited, LabelledText):
    """Files whose label is the number of a class from 0, or its name."""

    def class_names(self) -> list[str]:
        return self.known_names() or super().class_names()

    def targets(self, labels: Sequence[tuple[int, str]], path: Path) -> Tensor:
        numbers = self._numbers(self.num_classes)
        found = [numbers.get(label.strip()) for _, label in labels]
        if None in found:
            line, label = labels[found.index(None)]
            raise DataError(
                f"{path}, line {line}: the label {shown(repr(label), 40)} is neither a number from 0 to "
                f"{self.num_classes - 1} (dataset.num_classes) nor one of dataset.names"
            )
        return torch.tensor(found)


@dataclass(frozen=True, kw_only=True)
class DelimitedLabels(_Delimited, MultiLabelText):
    """Files whose label column holds the numbers or names of all labels that hold, joined by commas; may be empty."""

    def label_names(self) -> list[str]:
        return self.known_names() or super().label_names()

    def targets(self, labels: Sequence[tuple[int, str]], path: Path) -> Mapping[str, Tensor]:
        numbers = self._numbers(self.num_classes)
        presence = torch.zeros(len(labels), self.num_classes)
        for i, (line, joined) in enumerate(labels):
            for label in filter(None, (part.strip() for part in joined.split(","))):
                if label not in numbers:
                    raise DataError(
                        f"{path}, line {line}: the label {shown(repr(label), 40)} is neither a number from 0 to "
                        f"{self.num_classes - 1} (dataset.num_classes) nor one of dataset.names"
                    )
                presence[i, numbers[label]] = 1
        return {"presence": presence}


def rows(path: Path, columns: Sequence[Column]) -> Iterator[tuple[int, dict[Column, str]]]:
    """The line number and the wanted columns of each row.

    Args:
        path: The file; `.csv` has commas and quotes, others tabs. With names of columns, its first row holds names.
        columns: Names of columns, or their numbers from 0.

    Raises:
        DataError: A column is missing, or the file is no text in UTF-8.
    """
    quoted = path.suffix == ".csv"
    try:
        with open(path, encoding="utf-8-sig", newline="" if quoted else None) as file:
            # a quote in a TSV is a character like any other, and so is a carriage return inside a line
            lines = csv.reader(file) if quoted else (line.rstrip("\n").split("\t") for line in file)
            named = any(isinstance(column, str) for column in columns)
            header = next(iter(lines), []) if named else []
            places = {column: column if isinstance(column, int) else _place(column, header, path) for column in columns}
            for number, row in enumerate(lines, 2 if named else 1):
                if not row or row == [""]:
                    continue
                if len(row) <= max(places.values()):
                    raise DataError(
                        f"{path}, line {number}: {len(row)} columns, and column {max(places.values())} is needed"
                    )
                yield number, {column: row[place] for column, place in places.items()}
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is no text file in UTF-8: {error}") from None


def _place(column: str, header: Sequence[str], path: Path) -> int:
    if column not in header:
        raise DataError(f"{path} has no column '{column}'{did_you_mean(column, header)}")
    return list(header).index(column)
