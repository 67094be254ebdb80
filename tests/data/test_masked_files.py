"""Corpora in files: ids as the tokenizer gives them, in bounded memory, found again, and exact when resumed."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from small_tokens import tokenizer_folder
from tokenizers import Tokenizer

from kdx.core.batch import Batch
from kdx.core.pretrained import tokenizer_file
from kdx.data.loaders import Loaders, make_loaders
from kdx.data.sets import DataError
from kdx.data.text import stream
from kdx.data.text.masked import MaskedFiles, MaskedSet
from kdx.data.text.masking import Masking
from kdx.data.text.phrases import _Draw, opinion
from kdx.data.text.stream import stored_ids
from kdx.data.views.augment import PLAIN

LENGTH = 12


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two training files and one of test, of made-up opinions and empty lines."""
    draw = _Draw(0, "train")
    lines = [opinion(draw)[0] for _ in range(90)]
    for name, part in (("train/a.txt", lines[:40]), ("train/b.txt", lines[40:70]), ("test.txt", lines[70:])):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("\n\n".join(part) + "\n", "utf-8")
    return tmp_path


def corpus(folder: Path, **changes: object) -> MaskedFiles:
    settings = {
        "name": "lines",
        "fraction": 1.0,
        "fraction_seed": 0,
        "val_fraction": 0.1,
        "val_seed": 0,
        "train_subset": 10,
        "tokenizer": tokenizer_folder(),
        "max_length": LENGTH,
        "index": str(folder / "index"),
        "masking": Masking(share=0.15, masked=0.8, random=0.1, whole_words=True, smoothing=0.7),
        "root": str(folder.parent),
        "folder": folder.name,
        "train": "train/*.txt",
        "test": "test.txt",
        "shortest": 5,
    }
    return MaskedFiles(**{**settings, **changes})  # pyright: ignore[reportArgumentType]


def loaders(folder: Path, **changes: object) -> Loaders:
    return make_loaders(corpus(folder, **changes).splits(), PLAIN, 8, 8, 3, None, False, False)


def written(paths: list[Path], shortest: int) -> list[list[int]]:
    """What the tokenizer gives for each line, cut into texts of `LENGTH` tokens at most, one line at a time."""
    tokenizer = Tokenizer.from_file(f"{tokenizer_folder()}/tokenizer.json")
    inner, found = LENGTH - 2, []
    for path in paths:
        for line in filter(None, path.read_text().split("\n")):
            first, *ids, last = tokenizer.encode(line).ids
            found += [[first, *ids[at : at + inner], last] for at in range(0, len(ids), inner)]
    return [ids for ids in found if len(ids) >= shortest]


@pytest.mark.parametrize("chunk", [1, 7, 4096])
def test_ids_are_those_of_the_tokenizer_for_any_part_at_a_time(folder: Path, chunk: int, monkeypatch):
    monkeypatch.setattr(stream, "CHUNK", chunk)
    paths = sorted((folder / "train").glob("*.txt"))
    words = tokenizer_file(tokenizer_folder(), "tokenizer")
    found = stored_ids(paths, words, LENGTH, 5, folder / "index")
    expected = written(paths, 5)
    assert any(len(ids) == LENGTH for ids in expected) and len(expected) < len(written(paths, 1))
    assert found.lengths.tolist() == [len(ids) for ids in expected]
    assert found.ids.tolist() == [token for ids in expected for token in ids]
    assert isinstance(found.ids.numpy().base, np.memmap | torch.Tensor) or found.ids.dtype == torch.int32
    assert not list((folder / "index").glob("*.tmp"))


def test_ids_are_found_again_until_text_or_settings_change(folder: Path, monkeypatch):
    words, paths = tokenizer_file(tokenizer_folder(), "tokenizer"), [folder / "test.txt"]
    first = stored_ids(paths, words, LENGTH, 5, folder / "index")
    with monkeypatch.context() as patch:
        patch.setattr(stream, "load_tokenizer", lambda *given: pytest.fail("tokenised again"))
        assert torch.equal(stored_ids(paths, words, LENGTH, 5, folder / "index").ids, first.ids)
    assert not torch.equal(stored_ids(paths, words, LENGTH - 1, 5, folder / "index").ids, first.ids)
    assert len(stored_ids(paths, words, LENGTH, LENGTH, folder / "index").lengths) < len(first.lengths)
    with open(paths[0], "a") as file:
        file.write("the film is warm and the film is cold .\n")
    assert len(stored_ids(paths, words, LENGTH, 5, folder / "index").lengths) > len(first.lengths)


def test_what_an_interrupted_process_wrote_is_left_out(folder: Path, monkeypatch):
    words, paths = tokenizer_file(tokenizer_folder(), "tokenizer"), [folder / "test.txt"]
    with monkeypatch.context() as patch:
        patch.setattr(np, "save", lambda *given: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            stored_ids(paths, words, LENGTH, 5, folder / "index")
    assert not os.listdir(folder / "index")
    assert len(stored_ids(paths, words, LENGTH, 5, folder / "index").lengths) == len(written(paths, 5))


def equal(a: Batch, b: Batch) -> bool:
    same = (torch.equal(x, y) for x, y in zip(a.tensors, b.tensors, strict=True))
    return all(same) and len(a.tensors) == len(b.tensors)


def test_batches_are_a_function_of_seed_epoch_and_step(folder: Path):
    train = loaders(folder).train
    whole = [list(train.epoch(epoch)) for epoch in range(2)]
    again = loaders(folder).train  # a resumed run reads the stored ids
    for epoch, start in ((1, 3), (0, 0), (1, 0), (0, 5)):
        rest = list(again.epoch(epoch, start))
        assert len(rest) == train.steps_per_epoch - start
        assert all(equal(mine, theirs) for mine, theirs in zip(rest, whole[epoch][start:], strict=True))
    assert not any(equal(mine, theirs) for mine in whole[0] for theirs in whole[1])


def test_evaluation_hides_the_same_tokens_each_time_and_shows_the_rest(folder: Path):
    found = loaders(folder)
    test = found.evals["test"]
    assert all(equal(a, b) for a, b in zip(test, test, strict=True))
    data = test._steps.data
    assert isinstance(data, MaskedSet)
    for batch in test:
        inputs = data.padded(batch.index)
        assert isinstance(batch.inputs, dict) and isinstance(batch.inputs["input_ids"], torch.Tensor)
        hidden = batch.labels >= 0
        assert hidden.any(1).all()
        assert torch.equal(batch.labels[hidden], inputs["input_ids"][hidden])
        assert torch.equal(batch.inputs["input_ids"][~hidden], inputs["input_ids"][~hidden])


def test_hidden_tokens_follow_a_text_into_any_subset(folder: Path):
    whole, part = loaders(folder), loaders(folder, fraction=0.5)
    seen: dict[int, list[int]] = {}
    for found in (whole, part):
        data = found.splits.train
        for batch in found.train.epoch(1):
            for i, number in enumerate(data.origin[batch.index].tolist()):
                labels = [x for x in batch.labels[i].tolist() if x >= 0]
                assert seen.setdefault(number, labels) == labels
    assert len(part.splits.train) < len(whole.splits.train) == len(seen)


def test_texts_with_hidden_tokens_have_no_views_to_remember(folder: Path):
    found = loaders(folder)
    assert found.num_views is None and next(found.train.epoch(0)).view is None


def test_counts_are_those_of_the_training_texts(folder: Path):
    data = corpus(folder)
    train, test = data.load()
    assert isinstance(test, MaskedSet) and test.masker is not None
    counts = torch.bincount(train.ids.long(), minlength=data.inputs.vocab_size).clamp(min=1)
    ordinary = test.masker.weights > 0
    torch.testing.assert_close(test.masker.weights[ordinary], counts[ordinary].double() ** -0.7)


def test_bad_files_get_a_line(folder: Path):
    with pytest.raises(DataError, match="train texts of lines not found: looked for .*nothing"):
        corpus(folder, train="nothing/*").load()
    with pytest.raises(DataError, match="dataset.shortest=13 leaves out every text"):
        corpus(folder, shortest=13).load()
    (folder / "test.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="test.txt is no text file in UTF-8"):
        corpus(folder).load()
    (folder / "test.txt").write_text("warm\n")
    with pytest.raises(DataError, match="have no line of 5 tokens or more"):
        corpus(folder).load()
