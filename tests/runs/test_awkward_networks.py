"""Awkward networks of a user's own: same numbers after export and after resume, or one sentence before training."""

import copy
import dataclasses
from pathlib import Path

import awkward
import pytest
import torch
from door import SMALL
from torch import nn

from kdx.config.compose import Composed, ConfigError, compose
from kdx.core.errors import UserError
from kdx.core.spec import Images
from kdx.engine.finite import check_finite, infinite
from kdx.engine.record.meter import NonFiniteError
from kdx.models.own import as_network
from kdx.models.tap import plain
from kdx.models.weights import load_weights, save_weights
from kdx.runs import export
from kdx.runs.build import build_network
from kdx.runs.checks.travel import check_export
from kdx.runs.fused import FusedRuns
from kdx.runs.prepare import prepare
from kdx.runs.run import in_steps, run

SHORT = (
    *SMALL,
    "trainer.duration.epochs=null",
    "trainer.duration.steps=3",
    "trainer.checkpoint_seconds=0.0",
    "logger=none",
)

WORK = [
    "Half",
    "BFloat16",
    "Float64",
    "Complex",
    "Tied",
    "OldWeightNorm",
    "WeightNorm",
    "OldSpectralNorm",
    "SpectralNorm",
    "Parametrized",
    "Lazy",
    "FrozenBody",
    "FixedBuffer",
    "Infinite",
    "Integers",
    "ExtraState",
    "ExtraTensor",
    "Pair",
    "TupleInTraining",
    "List",
    "Dict",
    "Ordered",
    "Answering",
    "NamedOutputs",
    "Nested",
    pytest.param("CompiledPart", marks=pytest.mark.slow),  # importing the compiler takes seconds
    "scripted",
    "IgnoresEval",
    "AlwaysDrops",
    "Counter",
]

REFUSED = {
    "HalfWithoutCast": "HalfWithoutCast fails in evaluation mode on inputs",
    "ComplexLogits": "returned logits of type complex64, not real numbers",
    "Late": "registers 'late.weight' in its first forward",
    "Frozen": "is frozen: none of its 4 parameters requires gradients",
    "NoParameters": "has no parameters, so there is nothing to train",
    "Detached": "returns logits without gradients in training mode",
    "Meta": "has tensors on the meta device, such as 'fc.weight'",
    "CopiedState": r"the buffer 'centre' \(persistent=False\) is no part of its state_dict",
    "AttributeState": "the attribute 'centre' is no part of its state_dict",
    "RandomProjection": "the attribute 'projection' is no part of its state_dict",
    "ObjectState": "'_extra_state' is a type that a weights file cannot hold",
    "ChangesInput": "changes its input in place",
    "ChangesData": "changes its input in place",
    "OtherWidthInTraining": r"returns logits \[2, 8\] in training mode and \[2, 4\] in evaluation mode",
    "FixedBatch": r"fails in evaluation mode on inputs \[2, 1, 8, 8\] of dataset=synthetic: RuntimeError: shape",
    "FixedSize": r"fails in evaluation mode on inputs \[2, 1, 8, 8\] of dataset=synthetic: RuntimeError: mat1",
    "Channels": r"fails in evaluation mode on inputs \[2, 1, 8, 8\] .* to have 3 channels, but got 1",
    "ManyOutputs": "has 1000 outputs, and dataset=synthetic needs 4",
    "FewOutputs": "has 2 outputs, and dataset=synthetic needs 4",
    "MapOfLogits": r"returned logits of shape \[2, 4, 1, 1\] for 2 inputs, not \[2, 4\]",
    "Vague": "returned a dict with a, b, which has no 'logits'",
    "Broken": "student.net: KeyError: 'backbone'",
    "shared": "student.net and a second build of student.net are one module object",
    "SharesBody": "student.net and a second build of student.net have 'conv' in common",
}

TOLD = {
    "IgnoresEval": [
        "module 'norm' stays in training mode",
        "changes 'norm.running_mean' in evaluation mode",
    ],
    "AlwaysDrops": ["AlwaysDrops gives other outputs at a second call in evaluation mode"],
    "Counter": ["changes the attribute 'calls' in training"],
    "Pair": ["the logits are the first item of a tuple of 2"],
    "TupleInTraining": ["in training mode the logits are the first item of a tuple of 2"],
    "Dict": ["the logits are the field 'logits' of a dict with embedding, logits"],
    "Ordered": ["the logits are the field 'out' of an OrderedDict with out"],
    "FixedBuffer": [],
    "Tied": [],
}


@pytest.fixture(scope="module")
def supervised() -> Composed:
    return compose([*SHORT, "method=supervised"])


@pytest.fixture(scope="module")
def distilled() -> Composed:
    return compose([*SHORT, "method=kd"])


def with_network(composed: Composed, folder: Path, **targets: str) -> Composed:
    config = copy.deepcopy(composed.config)
    for role, name in targets.items():
        config[role]["net"] = {"_target_": f"awkward.{name}"}
    config["paths"] = {**config["paths"], "runs": str(folder / "runs"), "teachers": str(folder / "teachers")}
    return dataclasses.replace(composed, config=config)


@pytest.mark.parametrize("name", WORK)
def test_export_and_resume_give_the_same_numbers(name: str, supervised: Composed, tmp_path: Path, monkeypatch):
    trained: list[nn.Module] = []
    write = export.save_weights
    monkeypatch.setattr(export, "save_weights", lambda *given: (trained.append(given[1]), write(*given)))
    whole = run(prepare(with_network(supervised, tmp_path / "whole", student=name)))
    fresh = as_network(getattr(awkward, name)())
    load_weights(fresh, whole.student)
    torch.testing.assert_close(answers(fresh), answers(trained[0]))

    config = prepare(with_network(supervised, tmp_path / "cut", student=name))
    steps = in_steps(config, FusedRuns())
    while next(steps) < 2:
        pass
    steps.close()
    resumed = run(config)
    assert resumed.student.read_bytes() == whole.student.read_bytes()
    assert resumed.data["metrics"] == whole.data["metrics"]


def answers(net: nn.Module) -> torch.Tensor:
    net.eval()
    torch.manual_seed(2)
    return net(torch.randn(5, 1, 8, 8)).logits.detach()


@pytest.mark.parametrize("name", REFUSED)
def test_a_network_that_cannot_serve_is_refused_in_one_line(name: str, supervised: Composed, tmp_path: Path):
    with pytest.raises(ConfigError, match=REFUSED[name]) as found:
        prepare(with_network(supervised, tmp_path, student=name))
    (line,) = found.value.problems
    assert line.startswith("student.net")
    assert len(line) < 300


@pytest.mark.parametrize("name", TOLD)
def test_properties_that_are_no_error_are_reported(
    name: str, supervised: Composed, tmp_path: Path, capsys, monkeypatch
):
    monkeypatch.setattr("kdx.core.notice._said", set())
    monkeypatch.setattr("kdx.runs.checks.dry_run._passed", set())
    prepare(with_network(supervised, tmp_path, student=name))
    told = capsys.readouterr().err.splitlines()
    assert len(told) == len(TOLD[name])
    assert all(any(sentence in line for line in told) for sentence in TOLD[name]), told


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("ChangesInput", "teacher.net: ChangesInput changes its input in place"),
        ("IgnoresEval", "teacher.net: IgnoresEval changes 'norm.running_mean' in evaluation mode, and a teacher must"),
        ("RandomProjection", "teacher.net: RandomProjection: its export gives other outputs, since the attribute"),
        ("ManyOutputs", "teacher.net: ManyOutputs has 1000 outputs, and dataset=synthetic needs 4"),
    ],
)
def test_a_teacher_is_checked_before_it_is_trained(name: str, sentence: str, distilled: Composed, tmp_path: Path):
    with pytest.raises(ConfigError, match=sentence):
        prepare(with_network(distilled, tmp_path, teacher=name))


@pytest.mark.parametrize("name", ["shared", "SharesBody"])
def test_one_object_in_two_networks_is_refused(name: str, distilled: Composed, tmp_path: Path):
    sentence = r"student\.net and teacher\.net (are one module object|have 'conv' in common)"
    with pytest.raises(ConfigError, match=sentence):
        prepare(with_network(distilled, tmp_path, teacher=name, student=name))
    assert all(p.requires_grad for p in getattr(awkward, name)().parameters())


def test_a_lazy_teacher_is_trained_loaded_and_used(distilled: Composed, tmp_path: Path):
    result = run(prepare(with_network(distilled, tmp_path, teacher="Lazy", student="Lazy")))
    assert result.data["teacher"]["test/top1"] is not None


def test_lazy_peers_start_from_weights_of_their_own():
    node = {"_target_": "awkward.Lazy"}
    inputs = Images((1, 8, 8), (0.0,), (1.0,))
    first, second, again = (build_network(node, seed, lambda: inputs) for seed in (0, 1, 0))
    assert not torch.equal(plain(first).fc.weight, plain(second).fc.weight)
    assert torch.equal(plain(first).fc.weight, plain(again).fc.weight)
    assert first.training


def test_a_last_batch_of_one_example_under_batch_norm_is_refused_or_reported(
    supervised: Composed, tmp_path: Path, capsys
):
    composed = with_network(supervised, tmp_path, student="LargeLast")
    composed.config["trainer"]["batch_size"] = 19  # of 20 examples
    with pytest.raises(
        UserError, match=r"last batch of each epoch has one example .* trainer.drop_last=true leaves it out"
    ):
        run(prepare(composed))
    composed.config["trainer"]["drop_last"] = True
    run(prepare(composed))
    capsys.readouterr()
    composed = with_network(composed, tmp_path, student="Lazy")
    composed.config["trainer"]["drop_last"] = False
    run(prepare(composed))
    assert "one example (trainer.batch_size=19), from which alone batch norm takes" in capsys.readouterr().err


def test_an_export_that_is_not_the_network_ends_the_run_with_the_name_of_the_state(tmp_path: Path):
    torch.manual_seed(0)
    trained, fresh = as_network(awkward.AttributeState()), as_network(awkward.AttributeState())
    save_weights(tmp_path / "w.safetensors", trained, {})
    load_weights(fresh, tmp_path / "w.safetensors")
    batch = torch.randn(2, 1, 8, 8)
    check_export(trained, fresh, batch, "w.safetensors")
    plain(trained).centre += 1
    with pytest.raises(UserError, match=r"^w.safetensors .* since the attribute 'centre' is no part of its state_dict"):
        check_export(trained, fresh, batch, "w.safetensors")


def test_weights_that_become_infinite_are_still_found():
    net = awkward.Infinite()
    before = infinite(net)
    assert before == {"mask"}
    check_finite(net, before)
    net.fc.bias.data[0] = torch.inf
    with pytest.raises(NonFiniteError, match="'fc.bias' is not finite"):
        check_finite(net, before)
