"""The benchmark's settings: each as a run built by the command, and as its bare mathematics."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from bench_plain import divergence
from torch import nn
from torch.nn import functional as F

from kdx.config.compose import compose
from kdx.config.schema import RunConfig, Teacher
from kdx.core.seed import get_rng_state, set_rng_state
from kdx.models.teachers.memo_table import MemoTable
from kdx.models.weights import save_weights
from kdx.runs.build import build_light, build_loaders, build_network
from kdx.runs.fused import FusedRuns
from kdx.runs.prepare import prepare
from kdx.runs.run import in_steps
from kdx.runs.teacher import load_teacher

SETTINGS = ("exact", "folded", "fast", "int8", "memo", "sweep4-exact", "sweep4-fast", "sweep4-memo")
MEMBERS = 4
FOLDED = ["teacher.optimize=folded"]
# no limits, since a teacher with random weights meets none
ALL_PASS = ["teacher.max_kl=1e9", "teacher.min_agreement=0", "teacher.calibration_examples=128"]

Step = Callable[[], None]


def has_bf16(device: str) -> bool:
    """Whether the machine computes bfloat16 faster than float32."""
    if device == "cuda":
        return True
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


def overrides_of(setting: str, device: str) -> list[str]:
    """Overrides of a setting. Without fast bfloat16, `fast` is float32 with a folded teacher."""
    half = ["trainer.precision=bf16"] if has_bf16(device) else []
    fast = [*half, "teacher.optimize=bf16"] if half else FOLDED
    integers = [*half, "teacher.optimize=int8"]
    return {
        "exact": [],
        "folded": FOLDED,
        "fast": fast,
        "int8": integers,
        "memo": [*half, "teacher.memo=true"],
        # with int8 if available
        "fast-shared": integers if device == "cpu" else fast,
    }[{"sweep4-fast": "fast-shared"}.get(setting, setting.removeprefix("sweep4-"))]


def config_of(
    teacher: str, student: str, setting: str, folder: Path, device: str, more: Sequence[str] = ()
) -> RunConfig:
    """KD on CIFAR-shaped data in memory, without evaluation; `more` are overrides beside the setting's."""
    overrides = [
        "dataset=synthetic",
        "dataset.input_shape=[3,32,32]",
        "dataset.num_classes=100",
        "dataset.train_size=6400",
        "dataset.test_size=100",
        "recipe=crd240",
        f"teacher={teacher}",
        f"student={student}",
        f"trainer.device={device}",
        "trainer.checkpoint_seconds=1e9",  # once in 30 s in a real run; its cost is the disk's
        "logger=jsonl",
        f"paths.outputs={folder}",
        *ALL_PASS,
        *overrides_of(setting, device),
        *more,
    ]
    return replace(prepare(compose(overrides)), evals={})


def networks(config: RunConfig) -> tuple[nn.Module, nn.Module]:
    """Teacher and student with random weights: values do not change the cost."""
    return build_network(_teacher(config).net, 1), build_network(config.student.net, 0)


def _teacher(config: RunConfig) -> Teacher:
    assert config.teacher is not None
    return config.teacher


def members_of(config: RunConfig, setting: str, folder: Path) -> list[RunConfig]:
    """Configs of a setting's runs; writes the teacher's weights to disk."""
    weights = folder / "teacher.safetensors"
    if not weights.exists():
        save_weights(weights, networks(config)[0], {})
    teacher = replace(_teacher(config), checkpoint=str(weights), training=None)
    config = replace(config, teacher=teacher, data_seed=0)
    seeds = range(MEMBERS if setting.startswith("sweep") else 1)
    paths = replace(config.paths, runs=str(folder / setting))
    return [replace(config, seed=seed, paths=paths) for seed in seeds]


def loop(members: list[RunConfig]) -> Step:
    """Build a function that runs one step of each run in turn, as `kdx study` does."""
    fused = FusedRuns(len(members))
    runs = [in_steps(config, fused) for config in members]
    for run in runs:
        next(run)
    if _teacher(members[0]).memo:
        _warm(members[0])
    streams = [get_rng_state() for _ in runs]

    def step() -> None:
        for place, run in enumerate(runs):
            if len(runs) > 1:
                set_rng_state(streams[place])
            next(run)
            if len(runs) > 1:
                streams[place] = get_rng_state()

    return step


def _warm(config: RunConfig) -> None:
    """Fill the run's memo for the views of the first epochs."""
    (folder,) = Path(config.paths.memos).iterdir()
    facts = json.loads((folder / "memo.json").read_text())
    loaders = build_loaders(config, build_light(config))
    assert loaders.num_views is not None
    table = MemoTable(folder, loaders.num_views, facts["width"], _teacher(config).memo_dtype)
    for epoch in range(3):
        for batch in loaders.train.epoch(epoch):
            assert batch.view is not None
            table.write(batch.view.numpy(), torch.randn(len(batch), facts["width"]).numpy())
    table.close()


def bare(members: list[RunConfig]) -> Step:
    """Teacher forward, then forward, loss, backward and optimiser step of each student, on one batch in memory."""
    config = members[0]
    light = build_light(config)
    device, layout = light.device, torch.channels_last
    loaders = build_loaders(config, light)
    batch = next(iter(loaders.train.epoch(0))).to(device)
    remembered = _teacher(config).memo
    unremembered = replace(config, teacher=replace(_teacher(config), memo=False))
    teacher = load_teacher(unremembered, {"": Path(str(_teacher(config).checkpoint))}, loaders, device).network
    teacher.to(memory_format=layout)  # pyright: ignore[reportCallIssue] - torch's stub lacks it
    students = [build_network(c.student.net, c.seed).to(device).train() for c in members]
    for student in students:
        student.to(memory_format=layout)  # pyright: ignore[reportCallIssue]
    optimizers = [light.optimizer.build(student.named_parameters()) for student in students]
    half = light.settings.autocast
    answer = teacher(batch.inputs).logits

    def step() -> None:
        taught = answer if remembered else teacher(batch.inputs).logits
        for student, optimizer in zip(students, optimizers, strict=True):
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(device.type, half, enabled=half is not None):
                logits = student(batch.inputs).logits.float()
            loss = 0.1 * F.cross_entropy(logits, batch.labels) + 0.9 * divergence(logits, taught, 4.0)
            loss.backward()
            optimizer.step()

    return step


def loader(config: RunConfig) -> Iterator[None]:
    """Yield batches of the run's loader forever."""
    loaders, epoch = build_loaders(config, build_light(config)), 0
    while True:
        for _ in loaders.train.epoch(epoch):
            yield
        epoch += 1
