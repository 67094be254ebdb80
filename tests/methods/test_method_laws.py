"""Every file of configs/method, held to the same laws. A new file joins by being there."""

import copy
from typing import Any

import pytest
import torch

from kdx.config.compose import options
from kdx.core.method import Method
from kdx.core.schedule import Progress, Schedule
from kdx.core.seed import get_rng_state, set_rng_state
from kdx.engine.trainer import Trainer
from kdx.losses.base import Term
from kdx.models.weights import load_weights, save_weights
from kdx.studies.build import build_network, build_student

METHODS = options("method")
# what a method needs beside the pair that all of them get: a line for each
NEEDS: dict[str, tuple[str, ...]] = {
    "fsp": ("teacher.net.widths=[4,4,8,8]",),
    "kdsvd": ("teacher.net.widths=[4,4,8,8]",),
}
# whose deliverable is more than the student's network: its own file tests the export
WRAPS = {"simkd"}


@pytest.fixture(params=METHODS)
def config(request, tiny) -> Any:
    return tiny(f"method={request.param}", *NEEDS.get(request.param, ()))


def play(trainer: Trainer, steps: int, start: int = 0) -> list[Any]:
    """Take some steps of a run as the trainer does."""
    trainer.method.train()
    batches = [b for epoch in range(2) for b in trainer.loader.epoch(epoch)]
    now = [Progress(start + step, trainer.clock.steps, trainer.clock.schedule_epochs) for step in range(steps)]
    return [trainer.update(batches[p.step], p) for p in now]


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def given(method: Method) -> dict[str, torch.Tensor]:
    """State of what a method is given and must not change."""
    return {k: v.clone() for k, v in method.state_dict().items() if k.split(".")[0] in method.frozen}


def idle(method: Method, name: str) -> bool:
    """Whether a parameter belongs to a term of weight 0."""
    weights = {f"terms.{term}.": w for term, w in method.weights.items()}
    return any(name.startswith(prefix) and w == 0 and not isinstance(w, Schedule) for prefix, w in weights.items())


def test_what_trains_and_what_stays(config, built):
    trainer = built(config)
    method = trainer.method
    teacher = method.models().get("teacher")
    assert (teacher is not None) == method.uses_teacher
    before, untouched = copy.deepcopy(method.state_dict()), given(method)
    trainable = {name: p for name, p in method.named_parameters() if p.requires_grad}
    reached: set[str] = set()
    for start in range(4):
        (step,) = play(trainer, 1, start)
        assert step.terms.keys() == method.weights.keys()
        assert all(t.ndim == 0 and t.isfinite() for t in step.terms.values())
        assert not any(r.requires_grad for r in step.report.values())
        reached |= {name for name, p in method.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    intended = {name for name in trainable if not idle(method, name)}
    assert reached == intended
    assert same(given(method), untouched)
    if teacher is not None:
        assert untouched and not any(p.requires_grad for p in teacher.parameters())
        assert not any(m.training for m in teacher.modules())
    after = method.state_dict()
    assert {k for k in intended if torch.equal(after[k], before[k])} == set()
    optimised = {id(p) for g in trainer.update.optimizer.param_groups for p in g["params"]}
    assert optimised == {id(p) for p in trainable.values()}


def test_saved_and_loaded_it_takes_the_same_next_step(config, built, tmp_path):
    trainer = built(config)
    play(trainer, 3)
    rng = get_rng_state()
    torch.save({"method": trainer.method.training_state(), "update": trainer.update.state_dict()}, tmp_path / "state")
    (expected,) = play(trainer, 1, start=3)
    other = built(config, "other")
    state = torch.load(tmp_path / "state", weights_only=True)
    other.method.load_training_state(state["method"])
    other.update.load_state_dict(state["update"])
    set_rng_state(rng)
    (step,) = play(other, 1, start=3)
    assert same(dict(step.terms), dict(expected.terms))
    assert same(other.method.state_dict(), trainer.method.state_dict())


def test_the_exported_student_is_a_plain_network(config, built, tmp_path):
    if config["choices"]["method"] in WRAPS:
        pytest.skip("exports more than the student's network")
    trainer = built(config)
    play(trainer, 1)
    save_weights(tmp_path / "student.safetensors", trainer.deliverable, {})
    plain = build_network(config["student"]["net"], 99)
    load_weights(plain, tmp_path / "student.safetensors")
    assert same(plain.state_dict(), trainer.method.student.state_dict())
    inputs = torch.randn(3, *config["dataset"]["input_shape"])
    with torch.no_grad():
        assert torch.equal(plain.eval()(inputs).logits, trainer.method.student.eval()(inputs).logits)


def test_a_seed_decides_everything(config, built):
    def trained(seed: int, folder: str) -> dict[str, torch.Tensor]:
        trainer = built({**config, "seed": seed, "data_seed": 0}, folder)
        play(trainer, 2)
        return trainer.method.training_state()

    once, again, other = trained(5, "once"), trained(5, "again"), trained(6, "other")
    assert same(once, again)
    weights = [k for k, v in once.items() if v.is_floating_point() and v.ndim > 1]
    if config["choices"]["method"] in WRAPS:
        weights = [k for k in weights if not k.startswith("student.head.")]  # the teacher's
    assert weights and not any(torch.equal(once[k], other[k]) for k in weights)


def test_the_method_has_no_part_in_the_students_initial_weights(config, built):
    student = built(config).method.student
    student = student.net if config["choices"]["method"] in WRAPS else student
    assert same(student.state_dict(), build_student(config, None).state_dict())


def test_half_precision_networks_full_precision_losses(config, built):
    config = {**config, "trainer": {**config["trainer"], "precision": "bf16"}}
    trainer = built(config)
    seen: list[torch.dtype] = []

    def look(_, arguments: tuple) -> None:
        student, teacher = arguments[:2]
        seen.extend(o.logits.dtype for o in (student, teacher) if o is not None)
        seen.extend(f.dtype for o in (student, teacher) if o is not None for f in o.features.values())

    terms = [m for m in trainer.method.modules() if isinstance(m, Term)]
    for term in terms:
        term.register_forward_pre_hook(look)
    layers: list[torch.dtype] = []
    trainer.method.student.register_forward_hook(lambda m, i, outputs: layers.append(outputs.logits.dtype))
    steps = play(trainer, 2)
    assert layers == [torch.bfloat16] * 2
    assert seen and set(seen) == {torch.float32}
    for step in steps:
        assert all(t.dtype == torch.float32 and t.isfinite() for t in step.terms.values())
    assert all(v.isfinite().all() for v in trainer.method.training_state().values())
    assert {p.dtype for p in trainer.method.parameters()} == {torch.float32}
