"""Hidden tokens: shares, words, frequencies, and independence of batch and process."""

from collections import Counter

import pytest
import torch
from small_tokens import tokenizer_folder
from small_tokens import vocabulary as tokens
from torch import Tensor

from kdx.core.pretrained import tokenizer_file
from kdx.data.sets import DataError
from kdx.data.text.masking import Masker, Masking, Vocabulary, token_counts, uniform, vocabulary

PLAIN = Masking(share=0.15, masked=0.8, random=0.1, whole_words=False, smoothing=0.0)
SIZE, CLS, SEP, MASK = 50, 0, 1, 2
FACTS = Vocabulary(MASK, torch.arange(SIZE) < 3, (torch.arange(SIZE) >= 40))


def texts(count: int, length: int = 22) -> dict[str, Tensor]:
    """Texts of `length - 2` random tokens, or 4 fewer in every third text."""
    ids = torch.randint(3, SIZE, (count, length))
    ends = torch.where(torch.arange(count) % 3 == 0, length - 5, length - 1)
    ids[:, 0] = CLS
    ids[torch.arange(count), ends] = SEP
    mask = (torch.arange(length) <= ends[:, None]).long()
    return {"input_ids": ids * mask, "attention_mask": mask}


def hide(masking: Masking, inputs: dict[str, Tensor], seed: int = 0, epoch: int = 0, counts: Tensor | None = None):
    masker = Masker(masking, FACTS, torch.ones(SIZE).long() if counts is None else counts)
    return masker.hide(inputs, torch.arange(len(inputs["input_ids"])), seed, epoch)


def change(masking: Masking, **values) -> Masking:
    return Masking(**{**vars(masking), **values})


@pytest.mark.parametrize("share", [0.05, 0.15, 0.5])
def test_a_share_of_each_text_is_hidden_and_never_a_special_token(share: float):
    inputs = texts(60)
    shown, labels = hide(change(PLAIN, share=share), inputs)
    ids, hidden = inputs["input_ids"], labels >= 0
    ordinary = (inputs["attention_mask"] != 0) & (ids >= 3)
    assert torch.equal(hidden.sum(1), (share * ordinary.sum(1).double()).ceil().long())
    assert not (hidden & ~ordinary).any()
    assert torch.equal(labels[hidden], ids[hidden]) and torch.equal(shown["input_ids"][~hidden], ids[~hidden])
    assert torch.equal(shown["attention_mask"], inputs["attention_mask"])


def test_eight_of_ten_hidden_tokens_are_masked_one_is_random_and_one_stays():
    inputs = texts(3000)
    shown, labels = hide(change(PLAIN, share=0.5), inputs)
    hidden = labels >= 0
    after, before = shown["input_ids"][hidden], inputs["input_ids"][hidden]
    n = len(after)
    assert (after == MASK).double().mean() == pytest.approx(0.8 + 0.1 / SIZE, abs=4 * (0.16 / n) ** 0.5)
    assert (after == before).double().mean() == pytest.approx(0.1 + 0.1 / SIZE, abs=4 * (0.09 / n) ** 0.5)
    drawn = after[(after != MASK) & (after != before)].bincount(minlength=SIZE)
    drawn = drawn[torch.arange(SIZE) != MASK].double()
    expected = drawn.sum() / (SIZE - 1)
    assert ((drawn - expected).square() / expected).sum() < 96  # chi square of 48: beyond its 99.99 % quantile


@pytest.mark.parametrize("masked, random, kept", [(1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (0.0, 1.0, 0.0)])
def test_the_three_fates_are_those_of_the_settings(masked: float, random: float, kept: float):
    inputs = texts(200)
    shown, labels = hide(change(PLAIN, masked=masked, random=random), inputs)
    hidden = labels >= 0
    after, before = shown["input_ids"][hidden], inputs["input_ids"][hidden]
    assert ((after == MASK).all() if masked else (after == MASK).double().mean() < 0.1) and hidden.any()
    assert (after == before).double().mean() >= kept
    assert random == 0 or (after != before).double().mean() > 0.9


def test_every_token_is_hidden_as_often_as_any_other_and_each_epoch_others():
    inputs = {name: t[:1].expand(2000, -1) for name, t in texts(2).items()}
    inputs = {name: t.contiguous() for name, t in inputs.items()}
    hidden = [hide(PLAIN, inputs, epoch=epoch)[1] >= 0 for epoch in (0, 1)]
    there = (inputs["attention_mask"][0] != 0) & (inputs["input_ids"][0] >= 3)
    share = hidden[0].double().mean(0)[there]
    expected = 0.15 * 16
    expected = float(torch.tensor(expected).ceil()) / 16
    assert (share - expected).abs().max() < 5 * (expected * (1 - expected) / 2000) ** 0.5
    assert not torch.equal(*hidden)
    assert torch.equal(hidden[0], hide(PLAIN, inputs)[1] >= 0)
    assert not torch.equal(hidden[0], hide(PLAIN, inputs, seed=1)[1] >= 0)


def test_a_text_is_hidden_alike_in_any_batch_and_under_any_padding():
    inputs = texts(12)
    masker = Masker(change(PLAIN, whole_words=True, smoothing=0.7), FACTS, torch.randint(1, 90, (SIZE,)))
    numbers = torch.randint(10**9, (12,))
    shown, labels = masker.hide(inputs, numbers, 3, 2)
    some = torch.tensor([7, 3, 10])
    longer = {name: torch.nn.functional.pad(t[some], (0, 5)) for name, t in inputs.items()}
    again, theirs = masker.hide(longer, numbers[some], 3, 2)
    assert torch.equal(again["input_ids"][:, :22], shown["input_ids"][some]) and torch.equal(
        theirs[:, :22], labels[some]
    )
    assert (theirs[:, 22:] == -1).all()


def test_whole_words_are_hidden_together_until_there_are_enough():
    inputs = texts(300)
    _, labels = hide(change(PLAIN, whole_words=True), inputs)
    apart = 0
    _, single = hide(PLAIN, inputs)
    for i in range(300):
        ids = inputs["input_ids"][i].tolist()
        words: list[list[int]] = []
        for j, token in enumerate(ids):
            if token < 3:
                words.append([])
                continue
            if token >= 40 and words and words[-1]:
                words[-1].append(j)
            else:
                words.append([j])
        words = [word for word in words if word]
        hidden = [{bool(labels[i, j] >= 0) for j in word} for word in words]
        assert all(len(each) == 1 for each in hidden)
        sizes = [len(word) for word, each in zip(words, hidden, strict=True) if each == {True}]
        wanted = -(-15 * sum(map(len, words)) // 100)
        assert sum(sizes) >= wanted and sum(sizes) - wanted < max(sizes)
        apart += sum(len({bool(single[i, j] >= 0) for j in word}) > 1 for word in words)
    assert apart > 50  # single tokens do split words


def test_rare_tokens_are_hidden_as_often_as_their_weights_say():
    """Two kinds of tokens, one 100 times as frequent: the first drawn is rare with odds of the summed weights."""
    ids = torch.tensor([[CLS, *[3] * 8, *[4] * 2, SEP]]).expand(20000, -1).contiguous()
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    counts = torch.ones(SIZE).long()
    counts[3], counts[4] = 500, 5
    _, labels = hide(change(PLAIN, share=0.05, smoothing=0.7), inputs, counts=counts)
    assert ((labels >= 0).sum(1) == 1).all()
    odds = 2 * 5**-0.7 / (2 * 5**-0.7 + 8 * 500**-0.7)
    assert (labels == 4).any(1).double().mean() == pytest.approx(odds, abs=5 * (odds * (1 - odds) / 20000) ** 0.5)


def test_uniform_numbers_are_uniform_and_differ_in_all_three_arguments():
    drawn = uniform(torch.arange(400), 50, 7)
    assert drawn.min() > 0 and drawn.max() < 1
    bins = (drawn.flatten() * 20).long().bincount(minlength=20).double()
    assert ((bins - 1000).square() / 1000).sum() < 50  # 19 degrees of freedom: its 99.99 % quantile
    assert torch.corrcoef(torch.stack([drawn[:-1].flatten(), drawn[1:].flatten()]))[0, 1].abs() < 0.03
    assert len(drawn.flatten().unique()) == 20000
    assert torch.equal(drawn[5:6, :9], uniform(torch.tensor([5]), 9, 7))
    assert not (uniform(torch.arange(400), 50, 8) == drawn).any()


def test_the_vocabulary_of_a_tokenizer():
    facts = vocabulary(tokenizer_file(tokenizer_folder(), "tokenizer"))
    names = tokens()
    assert names[facts.mask_id] == "[MASK]"
    assert [names[i] for i in facts.special.nonzero().flatten()] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert [names[i] for i in facts.continues.nonzero().flatten()] == ["##ing", "##ed", "##s"]


def test_counts_are_those_of_a_counter(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("kdx.data.text.masking._PART", 7)
    ids = torch.randint(5, (100,), dtype=torch.int32)
    counted = Counter(ids.tolist())
    assert token_counts(ids, 6).tolist() == [counted[i] for i in range(6)]


def test_shares_beyond_one_are_refused():
    with pytest.raises(DataError, match=r"is at most 1, got 0\.8 \+ 0\.3"):
        change(PLAIN, random=0.3)
