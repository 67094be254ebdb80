"""Data sets of texts whose tokens are hidden, for masked language modelling."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from kdx.core.batch import Batch
from kdx.core.ranges import PositiveInt
from kdx.data.dataset import missing
from kdx.data.sets import DataError
from kdx.data.text.dataset import Split, TextDataset, Texts
from kdx.data.text.masking import Masker, Masking, token_counts, vocabulary
from kdx.data.text.stream import stored_ids
from kdx.data.text.token_set import TokenSet
from kdx.tasks.tokens import MaskedTokens


class MaskedSet(TokenSet):
    """Token sequences whose batches have hidden tokens; evaluation always hides the same ones.

    Attributes:
        masker: Hides the tokens; set before the first batch.
    """

    masker: Masker | None = None

    def subset(self, indices: Tensor) -> "MaskedSet":
        return as_masked(super().subset(indices), self.masker)

    def hidden(self, batch: Batch, seed: int | None, epoch: int) -> Batch:
        """A batch of this set with hidden tokens, and with their ids as labels.

        Args:
            batch: Padded texts.
            seed: The data seed; None for evaluation.
            epoch: The epoch.
        """
        assert self.masker is not None and isinstance(batch.inputs, Mapping)
        inputs = {name: t for name, t in batch.inputs.items() if isinstance(t, Tensor)}
        purpose = (0, 0) if seed is None else (seed, 1 + epoch)
        shown, labels = self.masker.hide(inputs, self.origin[batch.index], *purpose)
        return Batch(shown, {"labels": labels}, batch.index, batch.views, batch.view, batch.whole)


def as_masked(tokens: TokenSet, masker: Masker | None) -> MaskedSet:
    """The same token sequences as a `MaskedSet`."""
    targets = {"text": tokens.origin}  # a set needs a target; batches have labels instead
    own = tokens.ids, tokens.starts, tokens.lengths, tokens.facts, targets, tokens.origin, tokens.pool, tokens.types
    found = MaskedSet(*own, foreign=tokens.foreign)
    found.masker = masker
    return found


@dataclass(frozen=True, kw_only=True)
class Masked(TextDataset):
    """Texts without targets, in which tokens are hidden; a subclass reads the texts.

    Attributes:
        masking: Which tokens are hidden.
    """

    masking: Masking

    @property
    def task(self) -> MaskedTokens:
        inputs = self.inputs
        return MaskedTokens(inputs.vocab_size, inputs.fake(1, "cpu")["input_ids"].shape[1])

    def load(self) -> tuple[TokenSet, TokenSet]:
        return self.masked(self.sequences("train"), self.sequences("test"))

    def sequences(self, split: Split) -> TokenSet:
        """The token sequences of a split."""
        return self.tokens(self.texts(split))

    def masked(self, train: TokenSet, test: TokenSet) -> tuple[TokenSet, TokenSet]:
        """Both sets with hidden tokens; counts are those of the training set."""
        counts = token_counts(train.ids, self.inputs.vocab_size)
        masker = Masker(self.masking, vocabulary(self._words), counts)
        return as_masked(train, masker), as_masked(test, masker)


@dataclass(frozen=True, kw_only=True)
class MaskedFiles(Masked):
    """Files of plain text, a text a line, read and tokenised a part at a time; token ids stay in a file.

    A line of more than `max_length` tokens becomes several texts.

    Attributes:
        root: Folder of all data sets.
        folder: The data set's folder in `root`.
        train, test: A file, or a pattern of several, such as `train/*.txt`, below the folder.
        shortest: Texts with fewer tokens are left out, special ones counted.
    """

    root: str
    folder: str
    train: str
    test: str
    shortest: PositiveInt

    def files(self) -> Mapping[str, Sequence[str]]:
        return {str(self._base): [str(p) for split in (self.train, self.test) for p in self._matching(split)]}

    def sequences(self, split: Split) -> TokenSet:
        pattern = self.train if split == "train" else self.test
        paths = self._matching(pattern)
        if not paths:
            raise missing(self._base / pattern, f"the {split} texts of {self.name}", "put a file of lines there")
        if self.shortest > self.max_length:
            raise DataError(
                f"dataset.shortest={self.shortest} leaves out every text, since dataset.max_length is {self.max_length}"
            )
        found = stored_ids(paths, self._words, self.max_length, self.shortest, Path(self.index).expanduser())
        if not len(found.lengths):
            raise DataError(f"the {split} texts of {self.name} have no line of {self.shortest} tokens or more")
        return TokenSet(found.ids, found.starts, found.lengths, self.inputs, torch.zeros(len(found.lengths)).long())

    def texts(self, split: Split) -> Texts:
        raise DataError("texts of files are not held in memory; `sequences` gives their token ids")

    @property
    def _base(self) -> Path:
        return Path(self.root).expanduser() / self.folder

    def _matching(self, pattern: str) -> list[Path]:
        return sorted(path for path in self._base.glob(pattern) if path.is_file())
