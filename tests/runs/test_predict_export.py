"""`kdx predict` and `kdx export`: the answers of the run itself, on files and outside kdx."""

import csv
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from door import Said, command
from PIL import Image
from safetensors.torch import load_file
from words import grammar, write_tokenizer

from kdx.config.compose import compose
from kdx.core.errors import DamagedError, UserError
from kdx.data.sets import DataError
from kdx.metrics.multilabel import best_thresholds
from kdx.models.weights import sha256
from kdx.runs.build import build_light, build_loaders, build_student
from kdx.runs.prepare import prepare
from kdx.runs.run import run
from kdx.runs.use import interchange
from kdx.runs.use.answers import THRESHOLDS, label_limits
from kdx.runs.use.interchange import write_network
from kdx.runs.use.stored import stored

SHORT = (
    "trainer.batch_size=8",
    "trainer.duration.epochs=null",
    "trainer.duration.steps=12",
    "trainer.threads=1",
    "trainer.device=cpu",
    "logger=jsonl",
    "optimizer.lr=0.02",
)
TEXTS = (
    "dataset.train_size=64",
    "dataset.test_size=21",
    "dataset.train_subset=8",
    "student=bag_of_words",
    "student.net.width=6",
)
SIZES = ("hidden_size=8", "num_attention_heads=2", "intermediate_size=8", "max_position_embeddings=32")
ENCODER = ("student=transformers", *(f"+student.net.options.{size}" for size in (*SIZES, "num_hidden_layers=2")))


def finished(*overrides: str) -> Path:
    return run(prepare(compose(list(overrides)))).folder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("use")
    write_tokenizer(folder / "words", grammar())
    return folder


@pytest.fixture(scope="module")
def texts(place: Path) -> tuple[str, ...]:
    folders = (f"dataset.tokenizer='{place}/words'", f"dataset.index='{place}/index'", f"paths.outputs='{place}'")
    return (*TEXTS, *SHORT, *folders)


@pytest.fixture(scope="module")
def opinions(texts: tuple[str, ...]) -> Path:
    """A finished run on opinions."""
    return finished("dataset=phrases", "recipe=phrases", "method=supervised", *texts)


@pytest.fixture(scope="module")
def topics(texts: tuple[str, ...]) -> Path:
    """A finished run on sentences with several labels."""
    own = ("dataset=phrase_labels", "recipe=phrase_labels", "method=bce_labels", "dataset.val_fraction=0.25")
    return finished(*own, *texts)


@pytest.fixture(scope="module")
def photos(place: Path) -> Path:
    """A finished run on images in files, of other sizes than the network reads."""
    draw = np.random.default_rng(0)
    for part, count in (("train", 8), ("val", 5)):
        for label, name in enumerate(("dark", "light")):
            (place / "photos" / part / name).mkdir(parents=True)
            for i in range(count):
                pixels = draw.integers(100 * label, 100 * label + 120, (11 + i, 12, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(place / "photos" / part / name / f"{i}.png")
    data = ("dataset=imagefolder", f"dataset.root='{place}'", "dataset.folder=photos", "dataset.num_classes=2")
    size = ("dataset.input_shape=[3,8,8]", "dataset.resize=9", "recipe=digits", "augmentation=none")
    net = ("student=resnet8", "student.net.widths=[4,4,8,8]", "method=supervised", f"paths.outputs='{place}'")
    return finished(*data, *size, *net, *SHORT)


def answers(said: Said) -> list[dict[str, str]]:
    assert said.code == 0, said.err
    return list(csv.DictReader(io.StringIO(said.out), delimiter="\t"))


def test_images_in_files_get_the_runs_own_predictions(capsys, place: Path, photos: Path):
    found = answers(command(capsys, "predict", str(photos), str(place / "photos" / "val")))
    kept = load_file(photos / "predictions.safetensors")
    assert [line["file"] for line in found] == sorted(str(p) for p in (place / "photos" / "val").rglob("*.png"))
    columns = (kept[f"student/{name}"].tolist() for name in ("prediction", "confidence"))
    for line, prediction, confidence in zip(found, *columns, strict=True):
        assert line["class"] == ("dark", "light")[prediction]
        assert float(line[line["class"]]) == pytest.approx(confidence, rel=1e-4)
        assert float(line["dark"]) + float(line["light"]) == pytest.approx(1, abs=1e-4)
    alone = answers(command(capsys, "predict", str(photos), found[3]["file"]))
    assert [{**alone[0]}] == [found[3]]


@pytest.mark.parametrize("form", ["txt", "tsv", "csv"])
def test_lines_of_text_get_the_runs_own_predictions(capsys, tmp_path: Path, opinions: Path, form: str):
    lines = list(stored(opinions, "last").dataset.texts("test").first)
    file = tmp_path / f"lines.{form}"
    if form == "txt":
        file.write_text("\ufeff" + "\n".join([*lines[:4], "", *lines[4:]]) + "\n", "utf-8")
    elif form == "tsv":
        file.write_text("number\topinion\n" + "".join(f"{i}\t{line}\n" for i, line in enumerate(lines)))
    else:
        file.write_text("".join(f'"{line}",x\n' for line in lines))
    column = {"txt": (), "tsv": ("text=opinion",), "csv": ("text=0",)}[form]
    said = command(capsys, "predict", str(opinions), str(file), *column, f"to={tmp_path}/answers.csv", "batch=5")
    assert said.code == 0 and said.out == f"{tmp_path}/answers.csv\n"
    assert said.err == (["kdx: lines.txt: 1 empty line left out"] if form == "txt" else [])
    found = list(csv.DictReader(open(tmp_path / "answers.csv")))
    first = {"txt": [1, 2, 3, 4, 6], "tsv": [2, 3, 4, 5, 6], "csv": [1, 2, 3, 4, 5]}[form]
    assert [int(line["line"]) for line in found[:5]] == first
    kept = load_file(opinions / "predictions.safetensors")
    names = ["negative", "positive"]
    assert [names.index(line["class"]) for line in found] == kept["student/prediction"].tolist()
    confident = [max(float(line[name]) for name in names) for line in found]
    assert confident == pytest.approx(kept["student/confidence"].tolist(), rel=1e-4)


def test_pairs_are_read_from_the_data_sets_own_columns(capsys, place: Path, texts: tuple[str, ...]):
    (place / "pairs").mkdir()
    for split, count in (("train", 24), ("test", 9)):
        rows = [f"the {'dull' if i % 2 else 'clever'} film\tthe story {i}\t{i % 2}" for i in range(count)]
        (place / "pairs" / f"{split}.tsv").write_text("\n".join(["first\tother\tlabel", *rows]) + "\n")
    columns = ("dataset.text=first", "dataset.second=other", "dataset.train_subset=8", "method=supervised")
    data = ("dataset=text", f"dataset.root='{place}'", "dataset.folder=pairs", "dataset.num_classes=2", *columns)
    folder = finished(*data, *(o for o in texts if "_size=" not in o or "batch" in o))
    found = answers(command(capsys, "predict", str(folder), str(place / "pairs" / "test.tsv")))
    kept = load_file(folder / "predictions.safetensors")
    assert [int(line["class"]) for line in found] == kept["student/prediction"].tolist()
    assert [max(float(line["0"]), float(line["1"])) for line in found] == pytest.approx(
        kept["student/confidence"].tolist(), rel=1e-4
    )
    (place / "lines.txt").write_text("the film\n")
    said = command(capsys, "predict", str(folder), str(place / "lines.txt"))
    assert said.err == ["kdx: the network reads pairs of texts, columns of a .tsv or .csv; found lines.txt"]


def test_weights_that_changed_are_refused(capsys, tmp_path: Path, opinions: Path):
    shutil.copytree(opinions, tmp_path / "run")
    file = tmp_path / "run" / "student.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[:-3] + bytes([content[-3] ^ 1]) + content[-2:])
    (tmp_path / "lines.txt").write_text("good\n")
    said = command(capsys, "predict", str(tmp_path / "run"), str(tmp_path / "lines.txt"))
    assert said.code == 1 and not said.out
    assert said.err == [
        f"kdx: {file} is damaged: it changed after the run had finished (its sha256 in DONE is another)"
    ]


def test_labels_hold_from_thresholds_of_the_validation_split_on(capsys, tmp_path: Path, topics: Path):
    found = stored(topics, "last")
    light = build_light(found.config)
    loaders = build_loaders(found.config, light)
    net = build_student(found.config, topics / "student.safetensors").eval()
    with torch.no_grad():
        batches = [(net(batch.inputs).logits, batch.target("presence")) for batch in loaders.evals["val"]]
    wanted = best_thresholds(torch.cat([a for a, _ in batches]), torch.cat([b for _, b in batches]).double(), True)
    assert len(set(wanted.tolist())) > 2
    lines = list(light.dataset.texts("test").first)
    (tmp_path / "lines.txt").write_text("\n".join(lines))
    rows = answers(command(capsys, "predict", str(topics), str(tmp_path / "lines.txt")))
    assert json.loads((topics / THRESHOLDS).read_text())["logits"] == pytest.approx(wanted.tolist())
    kept = load_file(topics / "predictions.safetensors")["student/probability"].double()
    expected = kept.logit() >= wanted
    named = [{int(label) for label in filter(None, row["labels"].split(","))} for row in rows]
    assert named == [set(row.nonzero().flatten().tolist()) for row in expected]
    half = answers(command(capsys, "predict", str(topics), str(tmp_path / "lines.txt"), "threshold=0.5"))
    assert [len(list(filter(None, row["labels"].split(",")))) for row in half] == (kept >= 0.5).sum(1).tolist()
    assert named != [{int(label) for label in filter(None, row["labels"].split(","))} for row in half]


def test_missing_validation_data_are_named_with_the_way_around(capsys, tmp_path: Path, topics: Path, place: Path):
    shutil.copytree(topics, tmp_path / "run", ignore=shutil.ignore_patterns(THRESHOLDS))
    (tmp_path / "lines.txt").write_text("goals and games\n")
    from kdx.data.text.phrases import PhraseLabels

    def gone(self):
        raise DataError("the files are gone")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(PhraseLabels, "pools", gone)
        said = command(capsys, "predict", str(tmp_path / "run"), str(tmp_path / "lines.txt"))
        why = "thresholds of labels are chosen on validation data: the files are gone"
        assert said.code == 1 and said.err == [f"kdx: {why}; threshold=0.5 needs none"]
        assert command(capsys, "predict", str(tmp_path / "run"), str(tmp_path / "lines.txt"), "threshold=0.5").code == 0
        said = command(capsys, "export", str(tmp_path / "run"), str(tmp_path / "out"), "weights")
        assert said.code == 0 and said.err[0] == f"kdx: model.json states no thresholds: {why}"


def test_kept_thresholds_belong_to_the_weights(topics: Path):
    found, file = stored(topics, "last"), topics / THRESHOLDS
    label_limits(found, 8)
    changed = [0.25] * found.task.num_outputs
    file.write_text(json.dumps({"sha256": sha256(found.weights), "logits": changed}))
    assert label_limits(found, 8).tolist() == changed
    file.write_text(json.dumps({"sha256": "of others", "logits": changed}))
    assert label_limits(found, 8).tolist() != changed
    for damaged in ("[", '{"sha256": "a"}', json.dumps({"sha256": "a", "logits": changed[1:]})):
        file.write_text(damaged)
        with pytest.raises(DamagedError, match=f"{THRESHOLDS} is damaged"):
            label_limits(found, 8)
    file.unlink()


@pytest.mark.parametrize("form", ["torchscript", "weights"])
def test_an_export_gives_the_students_logits_without_kdx(
    capsys, tmp_path: Path, opinions: Path, photos: Path, form: str
):
    for folder, inputs in ((opinions, "texts"), (photos, "images")):
        said = command(capsys, "export", str(folder), str(tmp_path / inputs), form)
        assert said.code == 0, said.err
        facts = json.loads((tmp_path / inputs / "model.json").read_text())
        files = [tmp_path / inputs / facts["file"], tmp_path / inputs / "model.json"]
        files += [tmp_path / inputs / "tokenizer.json"] if inputs == "texts" else []
        assert set(said.out.split()) == {str(file) for file in files}
        assert facts["task"] == "classes" and len(facts["outputs"]) == 2 and facts["run"] == folder.name
        if form == "weights":
            assert sha256(files[0]) == sha256(folder / "student.safetensors")
    if form == "torchscript":
        net = torch.jit.load(str(tmp_path / "images" / "model.pt"))
        assert_images(net, tmp_path / "images", photos)
        assert_texts(torch.jit.load(str(tmp_path / "texts" / "model.pt")), tmp_path / "texts", opinions)


def assert_images(net, made: Path, photos: Path):
    """A network and `model.json` alone give the run's predictions of image files."""
    facts = json.loads((made / "model.json").read_text())["images"]
    files = sorted((photos.parent.parent / "photos" / "val").rglob("*.png"))
    images = []
    for file in files:
        image = Image.open(file).convert("RGB")
        short = min(image.size)
        image = image.resize([side * facts["resize"] // short for side in image.size], Image.Resampling.BILINEAR)
        left, top = (round((side - 8) / 2) for side in image.size)
        pixels = np.asarray(image.crop((left, top, left + 8, top + 8)), np.float32) / 255
        images.append(((pixels - facts["mean"]) / facts["std"]).transpose(2, 0, 1))
    logits = net(torch.tensor(np.stack(images), dtype=torch.float32))
    kept = load_file(photos / "predictions.safetensors")
    assert logits.softmax(1).amax(1).tolist() == pytest.approx(kept["student/confidence"].tolist(), rel=1e-3)


def assert_texts(net, made: Path, folder: Path):
    """A network, `model.json` and the tokenizer beside it alone give the run's predictions of texts."""
    from tokenizers import Tokenizer

    facts = json.loads((made / "model.json").read_text())["texts"]
    tokenizer = Tokenizer.from_file(str(made / facts["tokenizer"]))
    tokenizer.enable_truncation(facts["max_length"])
    tokenizer.enable_padding(pad_id=facts["pad_id"])
    lines = list(stored(folder, "last").dataset.texts("test").first)
    found = tokenizer.encode_batch(lines)
    ids, mask = (torch.tensor([getattr(one, key) for one in found]) for key in ("ids", "attention_mask"))
    kept = load_file(folder / "predictions.safetensors")
    logits = net(ids, mask)
    assert logits.argmax(1).tolist() == kept["student/prediction"].tolist()
    assert logits.softmax(1).amax(1).tolist() == pytest.approx(kept["student/confidence"].tolist(), rel=1e-3)


@pytest.mark.slow
def test_onnx_gives_the_runs_predictions_with_what_lies_beside_it(
    capsys, tmp_path: Path, photos: Path, texts, place: Path
):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")

    def session(made: Path):
        network = runtime.InferenceSession(str(made / "model.onnx"))
        names = [given.name for given in network.get_inputs()]
        return lambda *tensors: torch.from_numpy(
            network.run(["logits"], {name: t.numpy() for name, t in zip(names, tensors, strict=True)})[0]
        )

    assert command(capsys, "export", str(photos), str(tmp_path / "images")).code == 0
    assert_images(session(tmp_path / "images"), tmp_path / "images", photos)
    encoder = finished("dataset=phrases", "recipe=phrases", "method=supervised", *texts[:3], *texts[5:], *ENCODER)
    said = command(capsys, "export", str(encoder), str(tmp_path / "texts"))
    assert (
        said.code == 0
        and (tmp_path / "texts" / "tokenizer.json").read_bytes() == (place / "words" / "tokenizer.json").read_bytes()
    )
    assert_texts(session(tmp_path / "texts"), tmp_path / "texts", encoder)


def test_an_export_that_differs_is_refused_and_leaves_no_file(monkeypatch, tmp_path: Path, opinions: Path):
    true = interchange._torchscript

    def shifted(*given):
        net = true(*given)
        return lambda *tensors: net(*tensors) * 1.01

    monkeypatch.setattr(interchange, "_torchscript", shifted)
    with pytest.raises(UserError, match="torchscript does not hold this network: its logits differ"):
        write_network(stored(opinions, "last"), tmp_path / "made", "torchscript")
    assert not list((tmp_path / "made").iterdir())


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        (("predict", "RUN"), 2, "needs a run and its input, kdx predict RUN INPUT; found 1 of the two"),
        (("predict", "RUN", "FILE", "too=x"), 2, "unknown setting 'too'; did you mean 'to'?"),
        (("predict", "RUN", "FILE", "--to"), 2, "unknown option '--to'; see kdx predict --help"),
        (("predict", "RUN", "FILE", "batch=0"), 2, "batch=0 must be a number from 1 to 1e+06"),
        (("predict", "RUN", "FILE", "protocol=best"), 2, "protocol=best must be last or val_selected"),
        (("predict", "RUN", "FILE", "protocol=val_selected"), 1, "RUN has no student_val.safetensors; dataset.val"),
        (("predict", "RUN", "FILE", "threshold=0.5"), 1, "threshold is for several labels, and the task of phrases"),
        (("predict", "RUN", "FILE", "text=0"), 1, "text and second name columns of a .tsv or .csv, and lines.txt has"),
        (("predict", "RUN", "NOWHERE"), 1, "NOWHERE: no such file or folder"),
        (("predict", "RUN", "PLACE"), 1, "PLACE is a folder, and the network reads a .txt, .tsv or .csv file"),
        (
            ("predict", "RUN", "PLACE/table.tsv", "text=txt"),
            1,
            "PLACE/table.tsv has no column 'txt'; did you mean 'text'?",
        ),
        (("predict", "RUN", "PLACE/empty.txt"), 1, "PLACE/empty.txt has no line of text"),
        (("predict", "RUN", "PLACE/photo.txt"), 1, "PLACE/photo.txt is no text file in UTF-8: "),
        (("predict", "PHOTOS", "FILE"), 1, "cannot read the image FILE: "),
        (("predict", "PHOTOS", "PLACE"), 1, "PLACE has no images (.jpg, "),
        (("predict", "PLACE", "FILE"), 1, "PLACE is no finished run: it holds no run (kdx status lists runs)"),
        (("predict", "NOWHERE", "FILE"), 1, "NOWHERE: no such directory; name the directory of a finished run"),
        (("export", "RUN"), 2, "needs a run and a folder: kdx export RUN OUT [onnx|torchscript|weights]"),
        (("export", "RUN", "OUT", "onx"), 2, "unknown form 'onx'; did you mean 'onnx'?"),
        (("export", "RUN", "FILE", "weights"), 1, "FILE is a file; name a folder"),
    ],
)
def test_wrong_commands_are_answered_in_a_line(capsys, tmp_path: Path, opinions, photos, words, code: int, line: str):
    (tmp_path / "place").mkdir()
    for name, content in (
        ("empty.txt", b"\n\n"),
        ("table.tsv", b"text\tlabel\na\tb\n"),
        ("photo.txt", b"\xff\xd8\xff"),
    ):
        (tmp_path / "place" / name).write_bytes(content)
    (tmp_path / "lines.txt").write_text("good\n")
    places = {"RUN": opinions, "PHOTOS": photos, "FILE": tmp_path / "lines.txt", "PLACE": tmp_path / "place"}
    places |= {"NOWHERE": tmp_path / "none", "OUT": tmp_path / "out"}

    def filled(text: str) -> str:
        for word, path in places.items():
            text = text.replace(word, str(path)) if not text.startswith("needs") else text
        return text

    said = command(capsys, *map(filled, words))
    assert said.code == code
    wrong = [one for one in said.err if "skipped" not in one and "are resized" not in one]
    assert len(wrong) == 1 and wrong[0].startswith(f"kdx: {filled(line)}"), said.err
    assert not said.out


def test_a_missing_library_is_named_with_its_extra(monkeypatch, capsys, tmp_path: Path, opinions: Path):
    monkeypatch.setattr(interchange, "find_spec", lambda name: None)
    said = command(capsys, "export", str(opinions), str(tmp_path / "out"))
    assert said.code == 1 and not (tmp_path / "out").exists()
    assert said.err == ["kdx: the form onnx needs onnx, which is not installed: pip install 'kdx[onnx]'"]
