"""The facts of texts that `kdx data` prints: lengths, padding, samples."""

from collections.abc import Iterator, Sequence

import torch

from kdx.core.batch import Batch
from kdx.core.seed import generator
from kdx.data.order import ByLength
from kdx.data.sets import ExampleSet
from kdx.data.text.dataset import MultiLabelText, TextDataset
from kdx.data.text.masked import MaskedSet
from kdx.data.text.token_set import TokenSet, padding_share
from kdx.data.text.tokenize import decode

BATCH = 32  # examples of the batches whose padding is stated
SHOWN = 90  # most characters of a sample
SAMPLES = 2  # of each class
ROWS = 10  # most samples


def lengths(data: TokenSet) -> Iterator[str]:
    """Lines about the number of tokens, and about padding in training batches."""
    counts = data.lengths.double()
    most = data.facts.length
    yield (
        f"{counts.mean():.1f} tokens a text, half of them up to {int(counts.median())}, the longest {int(counts.max())}"
        f" (dataset.max_length={most}); {data.facts.vocab_size} tokens in the vocabulary"
    )
    order = ByLength(data.lengths, BATCH).draw(0, 0)
    yield (
        f"{padding_share(data.lengths[order], BATCH):.1%} of a training epoch's positions are padding in batches of "
        f"{BATCH}, where texts of similar lengths come together; {padding_share(data.lengths, BATCH):.1%} in file order"
    )


def samples(dataset: TextDataset, data: TokenSet, names: Sequence[str]) -> Iterator[str]:
    """A line for each of some random texts, with its class, its labels or its hidden tokens."""
    told = dataset.label_names() if isinstance(dataset, MultiLabelText) else names
    for index in _chosen(data):
        text = decode(data.row(index)[: int(data.lengths[index])].tolist(), dataset.tokenizer)
        text = text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"
        yield f"{_hidden(data, index, dataset.tokenizer) or _target(data, index, told)}: {text}"


def _chosen(data: ExampleSet) -> list[int]:
    """Positions of samples: some of each class in turn, or of all."""
    order = torch.randperm(len(data), generator=generator(0, "samples"))
    groups = data.strata[order]
    found = [order[groups == group][:SAMPLES] for group in groups.unique()]
    alone = len(found) == 1
    return (order[: 2 * SAMPLES] if alone else torch.cat(found)[:ROWS]).tolist()


def _hidden(data: ExampleSet, index: int, tokenizer: str) -> str:
    """The tokens of a text that are hidden in evaluation; "" for other sets."""
    if not isinstance(data, MaskedSet):
        return ""
    place = torch.tensor([index])
    labels = data.hidden(Batch(data.padded(place), {}, place), None, 0).labels
    return f"hides '{decode(labels[labels >= 0].tolist(), tokenizer)}'"


def _target(data: ExampleSet, index: int, names: Sequence[str]) -> str:
    if data.has_classes:
        return names[int(data.labels[index])]
    held = data.targets["presence"][index].nonzero().flatten().tolist()
    return ", ".join(names[int(label)] for label in held) or "no label"
