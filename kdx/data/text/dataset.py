"""The config object of a data set of text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import Tensor

from kdx.core.pretrained import TokenizerFile, tokenizer_file
from kdx.core.ranges import PositiveInt
from kdx.core.spec import Tokens
from kdx.data.dataset import Dataset, WithClasses
from kdx.data.sets import Targets
from kdx.data.text.token_set import TokenSet
from kdx.data.text.tokenize import encode
from kdx.tasks.labels import Labels

Split = Literal["train", "val", "test"]


@dataclass(frozen=True)
class Texts:
    """Texts with targets.

    Attributes:
        first: The text of each example, or the first of a pair.
        second: The second text of each pair; None for single texts.
        targets: As in `ExampleSet`.
    """

    first: Sequence[str]
    second: Sequence[str] | None
    targets: Tensor | Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class TextDataset(Dataset):
    """A data set of text; a subclass reads the texts.

    Attributes:
        tokenizer: Folder, `package:NAME` or name of the hub that holds `tokenizer.json`.
        max_length: Most tokens of an example; longer ones lose their end.
        index: Folder of cached token ids.
    """

    tokenizer: str
    max_length: PositiveInt
    index: str

    @property
    def pairs(self) -> bool:
        """Whether examples are pairs of texts."""
        return False

    @property
    def inputs(self) -> Tokens:
        words = self._words
        return Tokens(words.vocab_size, self.max_length, words.pad_id, words.fingerprint, self.pairs)

    def texts(self, split: Split) -> Texts:
        """The texts of a split; "val" only where the source has one. Raises DataError if they are missing."""
        raise NotImplementedError

    def load(self) -> tuple[TokenSet, TokenSet]:
        return self.tokens(self.texts("train")), self.tokens(self.texts("test"))

    def own_val(self) -> TokenSet | None:
        if not self.has_own_val:
            return None
        held = self.tokens(self.texts("val"))
        held.foreign = True  # its positions are none of the training set
        return held

    def tokens(self, texts: Texts) -> TokenSet:
        """Texts as token ids, see `kdx.data.text.tokenize.encode`."""
        return as_tokens(texts.first, texts.second, texts.targets, self.inputs, self._words, self.index, self.name)

    @property
    def _words(self) -> TokenizerFile:
        return tokenizer_file(self.tokenizer, "dataset.tokenizer")


def as_tokens(
    first: Sequence[str],
    second: Sequence[str] | None,
    targets: Targets,
    facts: Tokens,
    words: TokenizerFile,
    index: str | None,
    name: str,
) -> TokenSet:
    """A set of texts as token ids, cached in the folder `index` if one is given; `name` is for messages."""
    cache = None if index is None else Path(index).expanduser()
    found = encode(first, second, words, facts.length, cache, name)
    return TokenSet(found.ids, found.starts, found.lengths, facts, targets, types=found.types)


@dataclass(frozen=True, kw_only=True)
class LabelledText(WithClasses, TextDataset):
    """Texts with one class each."""


@dataclass(frozen=True, kw_only=True)
class MultiLabelText(TextDataset):
    """Texts of which any number of C labels holds.

    Attributes:
        num_classes: C.
    """

    num_classes: PositiveInt

    @property
    def task(self) -> Labels:
        return Labels(self.num_classes)

    def label_names(self) -> list[str]:
        """Name of each label for people; its number if the source has no names."""
        return [str(label) for label in range(self.num_classes)]
