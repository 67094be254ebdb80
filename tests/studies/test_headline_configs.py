"""The headline configs of vanillakd/imagenet: the settings that the paper prints, and two steps on made-up images."""

import json
import math
from pathlib import Path

import pytest

from kdx.config.compose import compose
from kdx.pool.pool import run_all
from kdx.runs.build import make
from kdx.runs.prepare import prepare
from kdx.studies.paper_table import PaperTable

PLACES = ("data", "outputs", "runs", "teachers", "memos")
STUDENTS = {
    "ResNet-50": "resnet50",
    "ViT-T": "vit_tiny_patch16_224",
    "ViT-S": "vit_small_patch16_224",
    "ConvNeXt V2-T": "convnextv2_tiny",
}
# README and command lines of Hao840/vanillaKD: epochs, weight decay, mixup, label smoothing
STRATEGIES = {
    "ResNet-50, A2": (300, 0.02, 0.1, 0.0),
    "ResNet-50, A1": (600, 0.01, 0.2, 0.1),
    **dict.fromkeys(STUDENTS, (4800, 0.01, 0.2, 0.1)),
}


@pytest.fixture(scope="module")
def study() -> PaperTable:
    return make(compose(["study=vanillakd/imagenet"], "study").config["study"])


def recipe(study: PaperTable, row: str, scale: str) -> list[str]:
    found = study.recipe(row, "top-1", study.scales[scale])
    assert isinstance(found, list)
    return [*found, "seed=0"]


@pytest.mark.parametrize("row", STRATEGIES)
def test_settings_are_those_of_the_paper(study: PaperTable, row: str):
    plain = compose(recipe(study, row, "paper")).config
    epochs, decay, mixup, smoothing = STRATEGIES[row]
    trainer, optimizer, schedule = plain["trainer"], plain["optimizer"], plain["schedule"]
    assert trainer["duration"]["epochs"] == trainer["schedule_epochs"] == epochs and trainer["batch_size"] == 2048
    assert (optimizer["name"], optimizer["lr"], optimizer["weight_decay"]) == ("lamb", 0.005, decay)
    assert schedule["_target_"].endswith(".Cosine") and schedule["warmup_epochs"] == 5
    assert schedule["warmup_start"] * optimizer["lr"] == pytest.approx(1e-6)
    views = plain["augmentation"]
    mixing = views["mixing"]
    assert (mixing["mixup_alpha"], mixing["cutmix_alpha"], mixing["label_smoothing"]) == (mixup, 1.0, smoothing)
    assert views["policy"]["magnitude"] == 7 and views["repeats"] == 3 and plain["dataset"]["resize"] == 236
    method = plain["method"]
    assert method["weights"] == {"ce": 1.0, "kd": 1.0} and method["temperature"] == 1.0
    assert method["terms"]["ce"]["_target_"].endswith(".HardBinaryCrossEntropy")
    net = plain["student"]["net"]
    assert net["name"] == STUDENTS[row.partition(",")[0]] and net["drop_path_rate"] == 0.05
    assert plain["teacher"]["net"]["name"].startswith("beitv2_base_patch16_224")


@pytest.mark.slow
@pytest.mark.parametrize("row", STUDENTS)
def test_two_steps_on_made_up_images_have_finite_losses(study: PaperTable, row: str, tmp_path: Path):
    # ViTs have a fixed size, 224; the teacher is random, since its weights are a download
    small = ["dataset.train_size=16", "dataset.test_size=8", "dataset.num_classes=10", "trainer.batch_size=4"]
    small += ["dataset.input_shape=[3,224,224]", "trainer.threads=1", *(f"paths.{k}={tmp_path}/{k}" for k in PLACES)]
    config = prepare(compose([*recipe(study, row, "smoke"), *small]))
    assert config.plain()["augmentation"]["repeats"] == 3 and config.plain()["optimizer"]["name"] == "lamb"
    results, failures = run_all({row: config}, 1, None, 1)
    assert failures == []
    data = results[row].data
    assert data["steps"] == 2
    lines = [json.loads(line) for line in (results[row].folder / "metrics.jsonl").read_text().splitlines()]
    losses = [line["train/loss"] for line in lines if "train/loss" in line]
    assert losses and all(math.isfinite(loss) and loss > 0 for loss in losses)
