"""Every file of configs/method, held to the same laws. A new file joins by being there."""

import io
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from conftest import CLASSES, OTHER_TASKS
from torch import Tensor

from kdx.config.compose import ConfigError, compose, options
from kdx.core.batch import UNLABELLED
from kdx.core.method import Method
from kdx.core.outputs import Step
from kdx.core.schedule import Progress, Schedule
from kdx.core.seed import get_rng_state, seeded, set_rng_state
from kdx.engine.optim.multi_optimizer import Parties
from kdx.engine.trainer import Trainer
from kdx.losses.base.term import Term
from kdx.models.weights import load_weights, save_weights
from kdx.runs.build import build_network, start_student
from kdx.runs.checks.dry_run import rehearse

METHODS = options("method")
SEVERAL = ("teacher.members={a:{},b:{},c:{}}",)
# what a method needs beside the pair that all of them get: a line for each
NEEDS: dict[str, tuple[str, ...]] = {
    "camkd": SEVERAL,
    "dgkd": SEVERAL,
    "ebkd": SEVERAL,
    "kd_each": SEVERAL,
    "kd_ensemble": SEVERAL,
    "kd_random": SEVERAL,
    "fsp": ("teacher.net.widths=[4,4,8,8]",),
    "kdsvd": ("teacher.net.widths=[4,4,8,8]",),
    "mlkd": ("augmentation=two_shifts",),
    "mlkd_ls": ("augmentation=two_shifts",),
    "mlkd_ls_shipped": ("augmentation=two_shifts",),
    "mlkd_shipped": ("augmentation=two_shifts",),
    "minilm_v2": ("method.terms.query_relation.relation_heads=4",),
}
# parameters of the student behind all features that a method reads
HEADLESS = ("student.fc.",)
LAST = "student.encoder.encoder.layer.1."
UNREAD: dict[str, tuple[str, ...]] = {
    "minilm": (*HEADLESS, *(f"{LAST}{part}" for part in ("attention.output.", "intermediate.", "output."))),
    "minilm_v2": (*HEADLESS, *(f"{LAST}{part}" for part in ("attention.output.", "intermediate.", "output."))),
    "tinybert_intermediate": HEADLESS,
}
# whose deliverable is more than the student's network: its own file tests the export
WRAPS = {"simkd"}
# never read: `built` gives teachers weights of its own
WEIGHTS = f"teacher.checkpoint='{__file__}'"
STEPS = 4

State = dict[str, Any]


@dataclass(frozen=True)
class Scene:
    """A run of a few steps, and what was seen on the way.

    Attributes:
        trainer: After the last step.
        first: State before the first step.
        saved: The file that was written before the last step.
        steps: What each step returned.
        reached: Names of the parameters that got a gradient.
    """

    trainer: Trainer
    first: State
    saved: bytes
    steps: list[Step]
    reached: set[str]

    @property
    def method(self) -> Method:
        return self.trainer.method


_scenes: dict[str, Scene] = {}


@pytest.fixture(params=METHODS)
def config(request, tiny) -> Any:
    data = OTHER_TASKS.get(request.param, CLASSES)
    try:
        return tiny(WEIGHTS, f"method={request.param}", *NEEDS.get(request.param, ()), data=data)
    except ConfigError as error:
        pytest.fail(f"method={request.param}: {error}; what it needs beside the pair is a line of NEEDS in {__file__}")


@pytest.fixture
def scene(config, built) -> Scene:
    """The run of a method, played once for all its tests, none of which changes it."""
    name = config.choices["method"]
    if name not in _scenes:
        trainer = built(config)
        first = state(trainer.method)
        steps, reached, file = [], set(), io.BytesIO()
        for number in range(STEPS):
            if number == STEPS - 1:
                parts = {"method": trainer.method.training_state(), "update": trainer.update.state_dict()}
                torch.save(parts | {"rng": get_rng_state()}, file)
            steps += play(trainer, number, number + 1)
            grads = {n: p.grad for n, p in trainer.method.named_parameters() if p.grad is not None}
            reached |= {n for n, grad in grads.items() if grad.abs().sum() > 0}
        _scenes[name] = Scene(trainer, first, file.getvalue(), steps, reached)
    return _scenes[name]


def play(trainer: Trainer, since: int, until: int) -> list[Step]:
    """Take some steps of a run as the trainer does."""
    trainer.method.train()
    batches = [b for epoch in range(2) for b in trainer.loader.epoch(epoch)]
    now = [Progress(step, trainer.clock.steps, trainer.clock.schedule_epochs) for step in range(since, until)]
    return [trainer.update(batches[p.step], p) for p in now]


def state(module: torch.nn.Module) -> State:
    return {k: v.clone() if isinstance(v, Tensor) else v for k, v in module.state_dict().items()}


def same(a: State, b: State) -> bool:
    """Whether two states are equal, the plain values of networks included."""
    equal = (torch.equal(a[k], b[k]) if isinstance(a[k], Tensor) else a[k] == b[k] for k in a)
    return a.keys() == b.keys() and all(equal)


def idle(method: Method, name: str) -> bool:
    """Whether a parameter belongs to a term of weight 0."""
    weights = {f"terms.{term}.": w for term, w in method.weights.items()}
    return any(name.startswith(prefix) and w == 0 and not isinstance(w, Schedule) for prefix, w in weights.items())


def optimizers(update: Any) -> list[torch.optim.Optimizer]:
    return list(update.optimizers.values()) if isinstance(update, Parties) else [update.optimizer]


def test_terms_are_finite_scalars_under_the_names_of_the_weights(scene: Scene):
    for step in scene.steps:
        assert step.terms.keys() == scene.method.weights.keys(), "Step.terms and weights in the YAML differ in names"
        assert all(t.ndim == 0 and t.isfinite() for t in step.terms.values())
        assert not any(r.requires_grad for r in step.report.values())


def test_all_that_should_learn_does_and_nothing_else(scene: Scene, config):
    trainable = {n: p for n, p in scene.method.named_parameters() if p.requires_grad}
    unread = UNREAD.get(config.choices["method"], ("none",))
    intended = {n for n in trainable if not idle(scene.method, n) and not n.startswith(unread)}
    # a bias of all keys cancels in the softmax: its gradient is rounding, or 0
    cancels = {n for n in trainable if n.endswith("key.bias")}
    assert scene.reached - cancels == intended - cancels
    after = scene.method.state_dict()
    assert not {n for n in intended - cancels if torch.equal(after[n], scene.first[n])}
    optimised = [id(p) for o in optimizers(scene.trainer.update) for g in o.param_groups for p in g["params"]]
    assert sorted(optimised) == sorted(id(p) for p in trainable.values())


def test_the_teacher_stays_as_it_was_given(scene: Scene):
    teacher = scene.method.models().get("teacher")
    assert (teacher is not None) == scene.method.uses_teacher
    given = {k: v for k, v in scene.method.state_dict().items() if k.split(".")[0] in scene.method.frozen}
    assert same(given, {k: scene.first[k] for k in given})
    if teacher is not None:
        assert any(k.endswith(("running_mean", "LayerNorm.weight")) for k in given)
        assert not any(p.requires_grad for p in teacher.parameters())
        assert not any(m.training for m in teacher.modules())


def test_saved_and_loaded_it_takes_the_same_next_step(scene: Scene, config, built):
    other = built(config)
    saved = torch.load(io.BytesIO(scene.saved), weights_only=True)
    other.method.load_training_state(saved["method"])
    other.update.load_state_dict(saved["update"])
    set_rng_state(saved["rng"])
    (step,) = play(other, STEPS - 1, STEPS)
    assert same(dict(step.terms), dict(scene.steps[-1].terms))
    assert same(other.method.state_dict(), scene.method.state_dict())


def test_the_exported_student_is_a_plain_network(scene: Scene, config, tmp_path):
    if config.choices["method"] in WRAPS:
        pytest.skip("exports more than the student's network")
    save_weights(tmp_path / "student.safetensors", scene.trainer.deliverable, {})
    plain = build_network(config.student.net, 99)
    load_weights(plain, tmp_path / "student.safetensors")
    assert same(plain.state_dict(), scene.method.student.state_dict())


def test_a_seed_decides_everything(scene: Scene, config, built):
    again = built(config)
    play(again, 0, STEPS)
    assert same(again.method.state_dict(), scene.method.state_dict())
    method = built(replace(config, seed=6, data_seed=0), "other").method
    other, weights = method.state_dict(), [n for n, p in method.named_parameters() if p.requires_grad and p.ndim > 1]
    drawn = [k for k in weights if scene.first[k].any()]  # a block that starts as the identity has zeros
    assert drawn and not any(torch.equal(other[k], scene.first[k]) for k in drawn)


def test_the_method_has_no_part_in_the_students_initial_weights(scene: Scene, config):
    prefix = "student.net." if config.choices["method"] in WRAPS else "student."
    initial = {k.removeprefix(prefix): v for k, v in scene.first.items() if k.startswith(prefix)}
    assert same(initial, start_student(config, None).state_dict())


def test_half_precision_networks_full_precision_losses(config, built):
    config = replace(config, trainer={**config.trainer, "precision": "bf16"})
    trainer = built(config)
    seen: list[torch.dtype] = []

    def look(_, arguments: tuple) -> None:
        for outputs in arguments[:2]:
            if outputs is not None:
                seen.extend(t.dtype for t in (outputs.logits, *outputs.features.values()) if t.is_floating_point())

    for term in (m for m in trainer.method.modules() if isinstance(m, Term)):
        term.register_forward_pre_hook(look)
    layers: list[torch.dtype] = []
    trainer.method.student.register_forward_hook(lambda m, i, outputs: layers.append(outputs.logits.dtype))
    steps = play(trainer, 0, 2)
    assert layers and set(layers) == {torch.bfloat16}
    assert seen and set(seen) == {torch.float32}
    for step in steps:
        assert all(t.dtype == torch.float32 and t.isfinite() for t in step.terms.values())
    kept = trainer.method.training_state().values()
    assert all(v.isfinite().all() for v in kept if isinstance(v, Tensor))
    assert {p.dtype for p in trainer.method.parameters()} == {torch.float32}


@pytest.fixture(scope="module")
def noise() -> dict:
    """A transfer set of which some examples have no label."""
    return compose(["transfer=noise", "transfer.labelled_share=0.5"]).config["transfer"]


def test_without_labels_it_is_refused_in_a_sentence_or_does_not_miss_them(config, built, noise):
    if config.choices["method"] in OTHER_TASKS:
        pytest.skip("reads no class")
    config = replace(config, transfer=noise)
    try:
        rehearse(config)
    except ConfigError as error:
        (sentence,) = error.problems
        assert "label" in sentence and "transfer set" in sentence
        return
    trainer = built(config)
    before = state(trainer.method)
    batch = next(trainer.loader.epoch(0))
    assert UNLABELLED in batch.labels and batch.labels.max() >= 0

    def terms(labels: Tensor) -> dict[str, Tensor]:
        trainer.method.load_state_dict(before)
        trainer.method.train()
        with seeded(0, "labels"):
            given = batch.with_targets(labels=labels), Progress(3, 8, 8.0)
            if trainer.method.needs_turns:
                steps = [turn.step for turn in trainer.method.turns(*given)]
            else:
                steps = [trainer.method(*given)]
        return {name: term.detach() for step in steps for name, term in step.terms.items()}

    without = terms(torch.full_like(batch.labels, UNLABELLED))
    for labels in (torch.zeros_like(batch.labels), torch.arange(len(batch)) % 5):
        given = terms(labels)
        for name, term in without.items():
            # a term that labels would change counts the labelled examples, of which there are none
            assert term.isfinite() and (torch.equal(term, given[name]) or term == 0), name
