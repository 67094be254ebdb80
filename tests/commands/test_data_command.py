"""`kdx data`: what it says of a data set, against a folder of images with known faults."""

import re

import numpy as np
import pytest
from door import command
from PIL import Image
from small_tokens import tokenizer_folder
from words import write_tokenizer


@pytest.fixture
def faulty(tmp_path):
    """Three classes of 4 training and 2 test images: a test image among the training images of another class, a
    repeated training image, a constant and a damaged one."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 4), ("val", 2)):
        for name in ("ant", "bee", "cat"):
            folder = tmp_path / "insects" / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    train, test = (tmp_path / "insects" / part for part in ("train", "val"))
    (train / "ant" / "0.png").write_bytes((test / "bee" / "1.png").read_bytes())
    (train / "cat" / "3.png").write_bytes((train / "cat" / "2.png").read_bytes())
    (train / "bee" / "0.png").write_bytes((train / "bee" / "0.png").read_bytes()[:60])
    Image.new("RGB", (16, 16), (255, 255, 255)).save(train / "bee" / "1.png")
    return tmp_path


def asked(folder, *overrides: str) -> list[str]:
    size = ("dataset.num_classes=3", "dataset.input_shape=[3,16,16]", "dataset.resize=16")
    return [
        "imagefolder",
        "dataset.folder=insects",
        f"paths.data={folder}",
        f"paths.outputs={folder}",
        *size,
        *overrides,
    ]


def test_each_fault_is_reported(capsys, faulty):
    said = command(capsys, "data", *asked(faulty))
    assert said.code == 0
    lines = [line.strip() for line in said.out.splitlines()]
    assert lines[0] == "insects: 3 classes, inputs 3x16x16"
    assert lines[1].split(maxsplit=1) == ["training", "12 examples, 4 of each class"]
    assert lines[2].split(maxsplit=1) == ["test", "6 examples, 2 of each class"]
    assert "training: 1 repeat an earlier one, none with another label" in lines[3]
    assert (
        "test: 1 are in the training set as well, 1 with another label: test 3 (" in lines[4]
        and "training 0 (" in lines[4]
    )
    assert "dataset.drop_duplicates=true" in lines[5]
    odd = [line for line in lines if "cannot be read" in line or "one value everywhere" in line]
    assert len(odd) == 2 and "bee/0.png" in odd[0] and "training: 1 have one value everywhere: number 5" in odd[1]
    with Image.open(faulty / "data" / "insects.png") as sheet:
        assert sheet.size[0] > 10 * 64 and sheet.size[1] >= 3 * 64


def test_without_duplicates_none_are_reported(capsys, faulty):
    bee = faulty / "insects" / "train" / "bee" / "0.png"
    bee.unlink()  # a damaged image has no content to compare
    lines = command(capsys, "data", *asked(faulty, "dataset.drop_duplicates=true")).out.splitlines()
    assert lines[1].split(maxsplit=1)[1].startswith("9 examples")
    assert [line.split() for line in lines if line.startswith("  duplicates")] == [["duplicates", "none"]]


def test_configured_statistics_are_compared(capsys, tmp_path):
    said = command(capsys, "data", "digits", "dataset.mean=[0.5]", f"paths.outputs={tmp_path}").out
    assert "mean [0.3042], deviation [0.3757]" in said and "configured are dataset.mean=[0.5]" in said


@pytest.mark.parametrize(
    "arguments, code, error",
    [
        (["cifr10"], 2, "unknown dataset 'cifr10'; did you mean 'cifar10'?"),
        (["digits", "dataset.frction=1"], 2, "frction"),
        (["digits", "dataset.fraction=2.0"], 2, "dataset.fraction: must be at most 1, found 2.0"),
        (["fraction=1"], 2, "the first word names the data set, found 'fraction=1'"),
        (["mnist", "paths.data=/nowhere"], 1, "MNIST not found: looked for /nowhere"),
    ],
)
def test_a_wrong_command_is_one_line(capsys, arguments, code, error):
    said = command(capsys, "data", *arguments)
    assert said.code == code and len(said.err) == 1 and error in said.err[0]


def test_texts_are_shown_with_their_lengths_and_padding(capsys, tmp_path):
    rows = "".join(f"{'film ' * (1 + i % 7)}\t{i % 2}\n" for i in range(80))
    for part in ("train", "test"):
        (tmp_path / "mine").mkdir(exist_ok=True)
        (tmp_path / "mine" / f"{part}.tsv").write_text("text\tlabel\n" + rows)
    write_tokenizer(tmp_path / "words")
    given = (f"dataset.tokenizer={tmp_path}/words", f"paths.data={tmp_path}", "dataset.folder=mine")
    more = ("dataset.num_classes=2", "dataset.max_length=8", f"paths.outputs={tmp_path}")
    found = command(capsys, "data", "text", *given, *more)
    assert found.code == 0, found.err
    assert "training    80 examples, 40 of each class" in found.out
    counts = [min(8, 3 + i % 7) for i in range(80)]
    assert (
        f"{sum(counts) / 80:.1f} tokens a text, half of them up to 6, the longest 8 (dataset.max_length=8)" in found.out
    )
    assert "of a training epoch's positions are padding in batches of 32" in found.out
    assert "1: film film" in found.out or "0: film film" in found.out
    assert any("11 of 80 texts of mine have more than 8 tokens" in line for line in found.err)


def test_hidden_tokens_are_shown_beside_their_texts(capsys, tmp_path):
    rows = "".join(f"{'the film was seen'} {'again ' * (i % 5)}\n" for i in range(30))
    (tmp_path / "mine").mkdir()
    for part in ("train", "test"):
        (tmp_path / "mine" / f"{part}.txt").write_text(rows)
    given = (f"dataset.tokenizer={tokenizer_folder()}", f"paths.data={tmp_path}", "dataset.folder=mine")
    found = command(capsys, "data", "masked_corpus", *given, "dataset.shortest=5", f"paths.outputs={tmp_path}")
    assert found.code == 0, found.err
    assert (
        re.search(r"mine: \d+ tokens, texts of up to 128 tokens", found.out) and "training    30 examples" in found.out
    )
    assert re.search(r"hides '\S+.*': the film was ", found.out), found.out
