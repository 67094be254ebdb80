"""Plain text without labels: a line is an example."""

from dataclasses import dataclass
from pathlib import Path

import torch

from kdx.core.batch import UNLABELLED
from kdx.core.ranges import Count, PositiveInt
from kdx.core.seed import generator
from kdx.data.dataset import Dataset
from kdx.data.sets import DataError, ExampleSet
from kdx.data.sources.unlabelled_sources import Source
from kdx.data.text.dataset import TextDataset, Texts
from kdx.data.text.token_set import TokenSet


@dataclass(frozen=True, kw_only=True)
class Corpus(Source):
    """The lines of a text file in UTF-8, or of all `*.txt` below a folder, sorted by name; empty lines are left out.

    Attributes:
        path: The file or folder.
        sha256: SHA-256 of the contents, filled in automatically.
        count: Number of lines, drawn at random; None for all.
        seed: Seed that selects them.
    """

    path: str
    sha256: str | None
    count: PositiveInt | None
    seed: Count

    def take(self, home: ExampleSet, dataset: Dataset) -> ExampleSet:
        if not isinstance(dataset, TextDataset) or not isinstance(home, TokenSet):
            raise DataError(f"transfer.unlabelled reads texts, and {dataset.name} has none")
        if home.types is not None:
            raise DataError(f"transfer.unlabelled reads single texts, and {dataset.name} has pairs")
        lines = list(read_lines(Path(self.path).expanduser()))
        if self.count is not None and self.count < len(lines):
            chosen = torch.randperm(len(lines), generator=generator(self.seed, "corpus", "count"))[: self.count]
            lines = [lines[i] for i in chosen.sort().values.tolist()]
        return dataset.tokens(Texts(lines, None, torch.full((len(lines),), UNLABELLED))).unlabelled()


def read_lines(path: Path) -> list[str]:
    """The lines of a file, or of all `*.txt` below a folder, without empty ones.

    Raises:
        DataError: There are none, or a file is not in UTF-8.
    """
    files = sorted(path.rglob("*.txt")) if path.is_dir() else [path]
    lines: list[str] = []
    for file in files:
        try:
            lines += [line for raw in file.read_text("utf-8-sig").split("\n") if (line := raw.strip())]
        except UnicodeDecodeError as error:
            raise DataError(f"{file} is no text file in UTF-8: {error}") from None
        except OSError as error:
            raise DataError(f"transfer.unlabelled.path: {file}: {error.strerror}") from None
    if not lines:
        raise DataError(f"transfer.unlabelled.path={path} has no line of text (a file, or a folder of *.txt)")
    return lines
