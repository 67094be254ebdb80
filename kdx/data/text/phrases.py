"""Made-up sentences of a small grammar: sentiment as two classes, or topics as several labels. No files."""

from dataclasses import dataclass

import torch
from torch import Tensor

from kdx.core.ranges import Count, PositiveInt
from kdx.core.seed import generator
from kdx.data.sets import DataError
from kdx.data.text.dataset import LabelledText, MultiLabelText, Split, Texts
from kdx.data.text.masked import Masked

THINGS = ("the film", "this story", "the acting", "her new book", "the whole plot", "their last song", "the ending")
VERBS = ("is", "was", "seems", "remains", "feels")
DEGREES = ("", "", "really", "quite", "very", "rather")
GOOD = ("charming", "clever", "moving", "funny", "brilliant", "warm", "fresh", "graceful")
BAD = ("boring", "stupid", "cold", "dull", "awful", "noisy", "empty", "clumsy")
NOT = ("not", "never", "hardly")
TAILS = ("", "", "", "from the very first minute to the last", "as everyone said it would be", "for a rainy evening")
TOPICS = (
    ("we watched the match", "the team scored late"),
    ("the soup needs salt", "she baked fresh bread"),
    ("the train was late", "they drove to the coast"),
    ("the bank raised its rates", "prices fell again"),
    ("the doctor called back", "my fever is gone"),
    ("the choir sang well", "he tuned the piano"),
    ("snow fell in the night", "the storm has passed"),
    ("the exam was hard", "the class read a poem"),
)


class _Draw:
    """Random choices of one split."""

    def __init__(self, seed: int, split: str):
        self._generator = generator(seed, "phrases", split)

    def below(self, bound: int) -> int:
        return int(torch.randint(bound, (), generator=self._generator))

    def one(self, words: tuple[str, ...]) -> str:
        return words[self.below(len(words))]


@dataclass(frozen=True, kw_only=True)
class MadeUp:
    """Sentences that a seed chooses.

    Attributes:
        train_size, test_size: Number of sentences.
        seed: Chooses the sentences.
    """

    train_size: PositiveInt
    test_size: PositiveInt
    seed: Count

    def drawing(self, split: Split) -> tuple[int, _Draw]:
        """Number of sentences of a split, and their random choices."""
        return self.train_size if split == "train" else self.test_size, _Draw(self.seed, split)


@dataclass(frozen=True, kw_only=True)
class Phrases(MadeUp, LabelledText):
    """Opinions of one or two clauses; class 1 is a good opinion.

    "not", "never" and "hardly" turn an opinion round, and after "but" the second clause decides, so a bag of words does
    not solve it.
    """

    def class_names(self) -> list[str]:
        return ["negative", "positive"]

    def texts(self, split: Split) -> Texts:
        if self.num_classes != 2:
            raise DataError(f"the opinions of {self.name} have two classes, got num_classes={self.num_classes}")
        size, draw = self.drawing(split)
        made = [opinion(draw) for _ in range(size)]
        return Texts([text for text, _ in made], None, torch.tensor([label for _, label in made]))


@dataclass(frozen=True, kw_only=True)
class PhraseLabels(MadeUp, MultiLabelText):
    """Sentences about one to three of eight topics, which are the labels."""

    def texts(self, split: Split) -> Texts:
        if self.num_classes != len(TOPICS):
            raise DataError(f"{self.name} has {len(TOPICS)} topics, got num_classes={self.num_classes}")
        size, draw = self.drawing(split)
        texts, presence = [], torch.zeros(size, len(TOPICS))
        for i in range(size):
            text, topics = report(draw)
            texts.append(text)
            presence[i, topics] = 1
        return Texts(texts, None, {"presence": presence})


@dataclass(frozen=True, kw_only=True)
class MaskedPhrases(MadeUp, Masked):
    """Opinions as in `Phrases`, with hidden tokens."""

    def texts(self, split: Split) -> Texts:
        size, draw = self.drawing(split)
        return Texts([opinion(draw)[0] for _ in range(size)], None, torch.zeros(size, dtype=torch.int64))


def opinion(draw: _Draw) -> tuple[str, int]:
    """A sentence and whether its opinion is good."""
    first, label = _clause(draw)
    if draw.below(3):
        return _joined(first, draw.one(TAILS), "."), label
    second, after = _clause(draw)
    return _joined(first, "but", second, draw.one(TAILS), "."), after


def report(draw: _Draw) -> tuple[str, Tensor]:
    """A sentence, and the numbers of the topics that it mentions."""
    count = 1 + draw.below(3)
    topics = [draw.below(len(TOPICS)) for _ in range(count)]
    return _joined(" and ".join(draw.one(TOPICS[topic]) for topic in topics), "."), torch.tensor(topics)


def _clause(draw: _Draw) -> tuple[str, int]:
    good, turned = draw.below(2), draw.below(4) == 0
    words = [draw.one(THINGS), draw.one(VERBS), draw.one(NOT) if turned else draw.one(DEGREES)]
    return _joined(*words, draw.one(GOOD if good else BAD)), good ^ int(turned)


def _joined(*words: str) -> str:
    return " ".join(filter(None, words))
