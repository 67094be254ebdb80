"""A run that trains a teacher has random streams of its own: no student of its seed repeats it."""

import copy
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from kdx.config.identity import identity
from kdx.config.schema import RunConfig
from kdx.runs.build import build_light, build_loaders, start_student
from kdx.runs.run import run

SELF = ("teacher.net.widths=[4,4,8,8]", "augmentation=shift")  # the student's own network, and views that are drawn


@pytest.fixture
def pair(tiny) -> tuple[RunConfig, RunConfig]:
    """A student's run and the same run as a teacher's."""
    student = tiny("method=supervised", "role=student", *SELF)
    return student, replace(student, role="teacher")


def weights(config: RunConfig) -> torch.Tensor:
    return torch.cat([p.flatten() for p in start_student(config, None).parameters()])


def batches(config: RunConfig) -> tuple[torch.Tensor, torch.Tensor]:
    found = list(build_loaders(config, build_light(config)).train.epoch(0))
    return torch.cat([b.index for b in found]), torch.cat([b.inputs for b in found])


def test_a_teacher_starts_from_other_weights_and_sees_other_batches(pair):
    student, teacher = pair
    assert not torch.equal(weights(student), weights(teacher))
    (order, views), (other_order, other_views) = batches(student), batches(teacher)
    assert not torch.equal(order, other_order)
    assert torch.equal(order.sort().values, other_order.sort().values)  # the same examples
    assert not torch.equal(views[order.argsort()], other_views[other_order.argsort()])  # in other views
    assert identity(student) != identity(teacher)


def test_the_streams_of_a_role_are_a_function_of_the_seed(pair):
    for config in pair:
        again, other = copy.deepcopy(config), replace(config, seed=1, data_seed=1)
        assert torch.equal(weights(config), weights(again)) and not torch.equal(weights(config), weights(other))
        assert torch.equal(batches(config)[0], batches(again)[0])
        assert not torch.equal(batches(config)[0], batches(other)[0])


def test_a_students_streams_are_those_of_its_plain_seed(pair):
    from kdx.core.seed import seeded
    from kdx.runs.build import make

    student, _ = pair
    with seeded(student.seed, "network"):
        net = make(student.student.net)
    assert torch.equal(weights(student), torch.cat([p.flatten() for p in net.parameters()]))


def test_a_teacher_that_is_trained_first_has_the_role(tiny):
    config = tiny("method=kd", *SELF)
    assert (config.role, config.teacher.training.role) == ("student", "teacher")
    members = tiny("method=kd_ensemble", "teacher.seeds=[0,1]").teacher.members
    assert {member.training.role for member in members.values()} == {"teacher"}


def test_self_distillation_meets_another_network(tiny):
    """With the same streams, recipe and network the student of seed 0 would be its own teacher."""
    length = ("trainer.duration.epochs=null", "trainer.duration.steps=8", "trainer.batch_size=8", "optimizer.lr=0.01")
    recipe = ",".join(f"'{override}'" for override in length)
    plain = ("method.weights.kd=0.0", "method.weights.ce=1.0", f"teacher.recipe=[{recipe}]")
    result = run(tiny("method=kd", *SELF, *plain))
    mine, theirs = load_file(result.student), load_file(result.data["teacher"]["weights"])
    kernels = [name for name, tensor in mine.items() if tensor.ndim == 4]
    assert mine.keys() == theirs.keys() and kernels
    assert not any(torch.equal(mine[name], theirs[name]) for name in kernels)


def test_a_teacher_as_built_is_not_the_student_as_built(tiny):
    result = run(tiny("method=kd", "teacher.checkpoint=null", *SELF))
    start = start_student(tiny("method=kd", "teacher.checkpoint=null", *SELF), None).state_dict()
    built = load_file(result.data["teacher"]["weights"])
    assert not all(torch.equal(start[name], built[name]) for name in built)
