"""Fixtures: configs of runs that take a fraction of a second, and seeds for each test."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hard_settings import OPEN_SCENES
from seeds import own_seed, seed_streams
from small_tokens import tokenizer_folder

from kdx.config.schema import RunConfig, run_config

SOMEWHERE = "a-place-that-each-test-has-for-itself"

# 5 steps an epoch, 8 steps a run, a short last batch when evaluating; small nets of three stages
COMMON = (
    "dataset.train_size=40",
    "dataset.test_size=25",
    "dataset.train_subset=10",
    "teacher.recipe=['trainer.batch_size=8','optimizer.lr=0.01']",
    "optimizer.lr=0.01",
    "trainer.duration.epochs=null",
    "trainer.duration.steps=8",
    "trainer.batch_size=8",
    "trainer.eval_batch_size=10",
    "trainer.log_steps=3",
    "trainer.threads=1",
    "trainer.device=cpu",
    "logger=jsonl",
)
TINY = ("dataset.input_shape=[3,8,8]", "teacher=resnet8", "teacher.net.widths=[6,6,10,10]", *COMMON)
STUDENT = ("student=resnet8", "student.net.widths=[4,4,8,8]")
# images of each task
CLASSES = ("dataset=synthetic", "dataset.num_classes=5")
LABELS = ("dataset=multilabel", "dataset.num_classes=5")
VALUES = (
    "dataset=plane",
    "dataset.mean=[0.5,0.5,0.5]",
    "dataset.std=[0.1,0.1,0.1]",
    "dataset.target_std=[100.0]",
    "student.net.num_classes=1",
    "teacher.net.num_classes=1",
)
# texts of each task, and encoders of two and four layers
SIZES = ("hidden_size=8", "num_attention_heads=2", "intermediate_size=8", "max_position_embeddings=32")
ENCODERS = (
    "student=transformers",
    *(f"+student.net.options.{size}" for size in (*SIZES, "num_hidden_layers=2")),
    "teacher=transformers",
    *(f"+teacher.net.options.{size}" for size in (*SIZES, "num_hidden_layers=4")),
    f"dataset.tokenizer={tokenizer_folder()}",
    f"dataset.index={tokenizer_folder()}/ids",
)
PHRASES = ("dataset=phrases", *ENCODERS)
MASKED = (
    "dataset=masked_phrases",
    *(o.replace("=transformers", "=transformers_masked") for o in ENCODERS),
)
# scenes with detectors of a few thousand weights, complete in themselves
SMALL_DETECTOR = (
    "widths=[4,4,6,6]",
    "levels=[2,3]",
    "channels=4",
    "width=8",
    "resolution=2",
    "anchor_sizes=[[8],[14]]",
)
FEW_REGIONS = ("rpn_batch=8", "pre_nms=20", "post_nms=6", "region_batch=6", "max_detections=5", "min_score=0.0")
BOXES = (
    "dataset=scenes",
    "dataset.input_shape=[3,32,32]",
    "dataset.train_size=40",
    "dataset.test_size=25",
    "dataset.train_subset=10",
    "dataset.sizes=[0.25,0.5]",
    *(f"{role}.net.{o}" for role in ("student", "teacher") for o in SMALL_DETECTOR),
    *(f"{role}.net.sampling.{o}" for role in ("student", "teacher") for o in FEW_REGIONS),
    "teacher.recipe=['method=detect','trainer.batch_size=8','trainer.duration.steps=8']",
    *(o for o in TINY if o.startswith(("trainer.", "logger="))),
)
# as BOXES, for a detector of one stage
ANCHORS = (
    *(
        o
        for o in BOXES
        if not o.startswith(("teacher.", "student.net.sampling", "student.net.width=", "student.net.res"))
    ),
    "student=retinanet_small",
    "student.net.matching.candidates=20",
    "student.net.matching.max_detections=5",
)
# images with a class of each pixel, and their networks
PIXELS = (
    "dataset=shape_masks",
    "student=fcn_resnet8",
    "student.net.backbone.widths=[4,4,8,8]",
    "teacher=lraspp_resnet14",
    "teacher.net.backbone={depth: 8, widths: [6,6,10,10]}",
    "teacher.net.width=8",
    *(o for o in TINY if o.startswith(("dataset.", "optimizer.", "trainer.", "logger=", "teacher.recipe="))),
)
OPEN = (
    *OPEN_SCENES,
    "student.net.widths=[4,4,6]",
    "student.net.channels=4",
    "student.net.width=8",
    "student.net.resolution=2",
    "student.net.anchor_sizes=[[8],[14]]",
    "student.net.sampling.rpn_batch=8",
    "student.net.sampling.pre_nms=20",
    "student.net.sampling.post_nms=6",
    "student.net.sampling.region_batch=6",
    *(o for o in TINY if o.startswith(("trainer.", "logger="))),
)
WITHOUT_IMAGES = (*OPEN, "dataset.image_size=0")
# complete in themselves, with networks
WHOLE = (BOXES, ANCHORS, PIXELS, OPEN, WITHOUT_IMAGES)
# data for each method that does not learn classes of images
OTHER_TASKS = {
    "detect": BOXES,
    "detect_cwd": BOXES,
    "detect_fgd": BOXES,
    "detect_kd": BOXES,
    "detect_mse": BOXES,
    "detect_one_stage": ANCHORS,
    "detect_pkd": BOXES,
    "detect_reviewkd": BOXES,
    "bce_labels": LABELS,
    "binary_kl_labels": LABELS,
    "distilbert": MASKED,
    "distilbert_task": PHRASES,
    "huber": VALUES,
    "l1": VALUES,
    "masked_lm": MASKED,
    "minilm": PHRASES,
    "minilm_v2": PHRASES,
    "mse": VALUES,
    "mse_kd": VALUES,
    "pkd": PHRASES,
    "tinybert": PHRASES,
    "tinybert_intermediate": PHRASES,
    "ovd_base": WITHOUT_IMAGES,
    "ovd_pis": OPEN,
    "ovd_rkd": WITHOUT_IMAGES,
    "ovd_rkd_pis": OPEN,
    "pixel_ce": PIXELS,
    "pixel_cwd": PIXELS,
    "pixel_kd": PIXELS,
    "pixel_skd": PIXELS,
}


@cache
def _prepared(overrides: tuple[str, ...]) -> str:
    from kdx.config.compose import compose
    from kdx.runs.prepare import prepare

    return json.dumps(prepare(compose([*overrides, f"paths.outputs={SOMEWHERE}"])).plain())


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def pytest_collectstart(collector: pytest.Collector):
    if isinstance(collector, pytest.Module):  # what a module draws while it is imported
        seed_streams(own_seed(collector.nodeid))


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest):
    if fixturedef.scope != "function":  # it is set up for whichever test comes first
        seed_streams(own_seed(f"{request.node.nodeid}::{fixturedef.argname}"))


@pytest.fixture(autouse=True)
def a_tests_seed(request: pytest.FixtureRequest):
    seed_streams(own_seed(request.node.nodeid))


@pytest.fixture
def tiny(tmp_path: Path) -> Callable[..., RunConfig]:
    """Prepared configs of tiny runs under the test's own folder: `tiny("method=kd", "seed=1")`."""

    def config(*overrides: str, student: tuple[str, ...] = STUDENT, data: tuple[str, ...] = CLASSES) -> RunConfig:
        networks = () if data in WHOLE else COMMON if set(ENCODERS[-2:]) <= set(data) else (*TINY, *student)
        text = _prepared((*data, *networks, *overrides))
        return run_config(json.loads(text.replace(SOMEWHERE, str(tmp_path))))

    return config


@pytest.fixture
def built(tmp_path: Path) -> Callable[..., Any]:
    """Trainers of tiny runs with a teacher of random weights, as a run builds them."""

    def build(config: RunConfig, folder: str = "built") -> Any:
        from kdx.core.seed import seeded
        from kdx.models.teachers.frozen import Frozen
        from kdx.runs.build import build_light, build_loaders, build_method, build_network, start_student
        from kdx.runs.checks.networks import random_inputs
        from kdx.runs.ensemble_config import each_teacher, ensemble
        from kdx.runs.training import build_trainer

        light = build_light(config)
        loaders = build_loaders(config, light)
        nets = {}
        for number, (name, own) in enumerate(each_teacher(config).items(), 1):
            net = build_network(own.teacher.net, number)
            with seeded(0, "statistics"), torch.no_grad():  # batch norms that have seen something
                net.train()
                net(random_inputs(light.dataset.inputs, 16))
            nets[name] = Frozen(net, None, None)
        teacher = nets.get("") or (ensemble(config.teacher, nets, loaders.spec.task) if nets else None)
        method = build_method(config, loaders, start_student(config, None), teacher)
        if light.settings.channels_last:
            method.to(memory_format=torch.channels_last)
        return build_trainer(config, tmp_path / folder, light, loaders, method)

    return build
