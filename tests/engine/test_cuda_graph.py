"""Steps replayed from a CUDA graph against the same eager steps."""

import copy

import pytest
import torch

from kdx.config.compose import ConfigError, compose
from kdx.core.schedule import Between, Linear, MultiStep, Progress, Watched, at
from kdx.engine.clock import Clock
from kdx.engine.optim.cuda_graph import WARM_UP, CudaRecorder, Graphed
from kdx.runs.build import build_light
from kdx.runs.checks.cuda_graph import unrecordable
from kdx.runs.prepare import prepare
from kdx.tasks.classes import image_classes

STEPS = 32
# a short last batch of 5; two milestones, the second within an epoch; weights and rates that are exact in float32
RUN = (
    "optimizer.implementation=fused",
    "trainer.batch_size=7",
    f"trainer.duration.steps={STEPS}",
    "trainer.schedule_epochs=2",
    "schedule.milestones=[0.5,1.3]",
    "optimizer.lr=0.03125",
    "schedule.gamma=0.5",
)
SCENES = {
    "a weight that rises by epochs": ("method=dkd", "method.weights.dkd.epochs=2", "update.clip_norm=0.5"),
}
MORE = {
    "kd": ("method=kd",),
    "a branch by epochs": ("method=ft", "method.terms.ft.paraphrase_epochs=1"),
    "a temperature that is learned": ("method=ctkd", "method.terms.kd.temperature.reversal.until=0.5"),
    "in parts": ("method=kd", "update.accumulate=2"),
    "dropout": ("method=kd", "student=mlp_400", "student.net.hidden=[12]"),
    "adamw": ("method=fitnet", "optimizer=adamw", "optimizer.implementation=fused", "optimizer.lr=0.03125"),
}


class ByHand:
    """A stand-in for a captured graph: keeps the tensors and numbers of the capture."""

    def __init__(self):
        self.recorded = self.replayed = 0

    def warm(self, take):
        return take()

    def record(self, take):
        self.recorded += 1

        def replay():
            self.replayed += 1
            return take()

        return replay


def trace(trainer, update, first: int = 0, last: int = STEPS) -> list[dict[str, float]]:
    """All terms of all steps from number `first` on, as the trainer runs them."""
    clock = Clock(STEPS, trainer.loader.steps_per_epoch, 2.0)
    clock.step, rows = first, []
    trainer.method.train()
    while clock.step < last:
        for batch in trainer.loader.epoch(*clock.position):
            step = update(batch.to(trainer.device), clock.progress())
            rows.append({k: v.item() for k, v in (step.terms | step.report).items()} | {"lr": update.lr})
            clock.step += 1
            if clock.step == last:
                break
    return rows


def weights(trainer) -> dict[str, torch.Tensor]:
    return copy.deepcopy(trainer.method.training_state())


def config_of(tiny, scene: str):
    overrides = (SCENES | MORE)[scene]
    plain = any(o.startswith("student=") for o in overrides)
    return tiny(*RUN, *overrides, **({"student": ()} if plain else {}))


@pytest.mark.parametrize("scene", [*SCENES, *(pytest.param(scene, marks=pytest.mark.slow) for scene in MORE)])
def test_replayed_steps_are_those_taken_one_by_one(tiny, built, scene: str):
    config = config_of(tiny, scene)
    ours, theirs, recorder = built(config, "ours"), built(config, "theirs"), ByHand()
    torch.manual_seed(1)
    mine = trace(ours, Graphed(ours.update, recorder))
    torch.manual_seed(1)
    assert mine == trace(theirs, theirs.update)
    expected = weights(theirs)
    assert all(torch.equal(t, expected[name]) for name, t in weights(ours).items())
    # one of six batches per epoch is short; a milestone needs no new capture
    assert recorder.replayed >= STEPS // 3
    assert recorder.recorded == 1 or scene.startswith("a ")


def test_resumed_in_the_middle_it_is_the_same_run(tiny, built):
    config = config_of(tiny, "kd")
    whole, first, second = (built(config, folder) for folder in ("whole", "first", "second"))
    expected = trace(whole, Graphed(whole.update, ByHand()))
    begun = Graphed(first.update, ByHand())
    assert trace(first, begun, 0, 15) == expected[:15]
    state, recorder = copy.deepcopy(begun.state_dict()), ByHand()
    assert all(type(group["lr"]) is float for group in state["param_groups"])
    second.method.load_training_state(weights(first))
    resumed = Graphed(second.update, recorder)
    resumed.load_state_dict(copy.deepcopy(state))
    assert trace(second, resumed, 15) == expected[15:]
    assert recorder.replayed
    # also if a graph was captured before: it reads the old tensors
    second.method.load_training_state(weights(first))
    resumed.load_state_dict(state)
    assert trace(second, resumed, 15) == expected[15:]


def test_a_batch_of_another_shape_or_layout_is_taken_as_ever(tiny, built):
    trainer, recorder = built(config_of(tiny, "kd")), ByHand()
    update, batch = Graphed(trainer.update, recorder), next(iter(trainer.loader.epoch(0)))
    for _ in range(WARM_UP + 2):
        update(batch, Progress(0, STEPS, 8.0))
    assert recorder.replayed == 2
    for other in (batch.chunk(2)[0], batch.map(lambda t: t.contiguous())):
        update(other, Progress(0, STEPS, 8.0))
    assert recorder.replayed == 2
    update(batch, Progress(0, STEPS, 8.0))
    assert recorder.replayed == 3 and recorder.recorded == 1


def test_a_watched_progress_says_what_the_step_depends_on():
    ramp, steps = Linear(0.0, 1.0, until=4), MultiStep([2], 0.1)
    watched = Watched(Progress(12, 32, 8.0))
    assert at(ramp, watched) == 0.75 and at(steps, watched) == 0.1 and at(3.0, watched) == 3.0
    assert watched.epoch == 3 and watched.exact_epoch == 3.0 and watched.fraction == 0.375 and watched.step == 12
    same = [[read(Progress(step, 32, 8.0)) == value for read, value in watched.reads] for step in (12, 13, 16)]
    assert same == [[True] * 6, [False, True, True, False, False, False], [False, True, False, False, False, False]]
    branch = Watched(Progress(0, 32, 8.0))
    at(Between(1.0, until=3), branch)
    assert [value for _, value in branch.reads] == [1.0]


def test_on_a_cpu_it_is_refused_in_a_line():
    with pytest.raises(ConfigError) as told:
        prepare(compose(["dataset=synthetic", "method=supervised", "trainer.device=cpu", "trainer.cuda_graph=true"]))
    assert told.value.problems == [
        "trainer.cuda_graph=true records the steps of a GPU, and this run is on cpu; set trainer.cuda_graph=false"
    ]


RISING = "{_target_: kdx.core.schedule.Ramp, start: 0.0, end: 1.0}"
RANDOM = "torch.randperm without a device"
REFUSED = {
    "optimizer.implementation=fused": ("method=kd", "optimizer.implementation=foreach"),
    "update=joint": ("method=dml", "update=peers"),
    "changes its value in 100% of the steps": ("method=kd", f"method.weights.kd={RISING}"),
    RANDOM: ("method=dgkd",),
    "Tensor.nonzero": ("method=bss",),
}


@pytest.mark.parametrize("sentence", [pytest.param(s, marks=[pytest.mark.slow] * (s != RANDOM)) for s in REFUSED])
def test_steps_that_cannot_be_recorded_are_reported_before_training(tiny, built, sentence: str):
    config = tiny("optimizer.implementation=fused", *REFUSED[sentence])
    trainer = built(config)
    config.trainer["cuda_graph"] = True
    spec = image_classes(5, (3, 8, 8), 64, (0.0,) * 3, (1.0,) * 3)
    told = list(unrecordable(config, build_light(config), trainer.method, trainer.update, spec))
    assert any(sentence in line for line in told), told


@pytest.mark.slow
@pytest.mark.parametrize("method", ["kd", "dkd", "kd_ensemble", "camkd", "ard", "ctkd", "mlkd", "noisy_teacher"])
def test_steps_of_most_methods_can_be_recorded(tiny, built, method: str):
    views = ["augmentation=two_views"] if method == "mlkd" else []
    config = tiny(f"method={method}", "optimizer.implementation=fused", *views)
    trainer = built(config)
    config.trainer["cuda_graph"] = True
    spec = image_classes(5, (3, 8, 8), 64, (0.0,) * 3, (1.0,) * 3)
    assert list(unrecordable(config, build_light(config), trainer.method, trainer.update, spec)) == []


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


def on_gpu(trainer):
    """Move the trainer to a GPU, with a new optimiser over the moved parameters."""
    trainer.device = torch.device("cuda")
    trainer.method.to(trainer.device)
    assert not trainer.update.optimizer.state, "it has taken no step"
    return trainer


@needs_gpu
@pytest.mark.parametrize("scene", [*SCENES, *MORE])
def test_on_a_gpu_a_graph_takes_the_steps_that_are_taken_one_by_one(tiny, built, scene: str):
    config = config_of(tiny, scene)
    ours, theirs = on_gpu(built(config, "ours")), on_gpu(built(config, "theirs"))
    torch.manual_seed(1)
    mine = trace(ours, Graphed(ours.update, CudaRecorder(ours.device)))
    torch.manual_seed(1)
    for row, other in zip(mine, trace(theirs, theirs.update), strict=True):
        assert row == pytest.approx(other, rel=1e-3, abs=1e-4)


@needs_gpu
def test_on_a_gpu_a_resumed_graph_goes_on_as_it_would_have(tiny, built):
    config = config_of(tiny, "kd")
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        whole, first, second = (on_gpu(built(config, folder)) for folder in ("whole", "first", "second"))
        expected = trace(whole, Graphed(whole.update, CudaRecorder(whole.device)))
        begun = Graphed(first.update, CudaRecorder(first.device))
        trace(first, begun, 0, 15)
        second.method.load_training_state(weights(first))
        resumed = Graphed(second.update, CudaRecorder(second.device))
        resumed.load_state_dict(copy.deepcopy(begun.state_dict()))
        for row, other in zip(trace(second, resumed, 15), expected[15:], strict=True):
            assert row == pytest.approx(other, rel=1e-5)
    finally:
        torch.use_deterministic_algorithms(False)
