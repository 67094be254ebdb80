"""The laws of every term that holds another term; a new one joins by a line in `WRAPPERS`."""

import importlib
import pkgutil
from collections.abc import Callable
from typing import Any

import pytest
import torch
from law_case import CLASSES, SPEC, START, STUDENT, TEACHER, Headed
from loss_references import random_outputs
from torch import Tensor, nn

import kdx.losses
from kdx.core.batch import Batch
from kdx.core.outputs import Outputs, Shapes
from kdx.core.schedule import Progress
from kdx.core.spec import DataSpec
from kdx.losses.base.term import Term
from kdx.losses.base.weighting import Constant
from kdx.losses.base.wrapper import Wrapper
from kdx.losses.logits.ensemble import EachMember
from kdx.losses.logits.mlkd import LeastConfident
from kdx.losses.wrappers.logit_standardization import LogitStandardization
from kdx.losses.wrappers.noise import NoisyLogits
from kdx.losses.wrappers.over_rows import OverRows
from kdx.losses.wrappers.sdd import SDD
from kdx.losses.wrappers.staged import Staged

WRAPPERS: dict[type[Term], Callable[[Term], Term]] = {
    LogitStandardization: LogitStandardization,
    NoisyLogits: lambda term: NoisyLogits(term, "student", "additive", "logit", "batch", 0.5, 0.1),
    LeastConfident: lambda term: LeastConfident(term, "each"),
    SDD: lambda term: SDD(term, [1, 2], 2.0),
    Staged: lambda term: Staged(term, 0, None),
    OverRows: lambda term: OverRows(term, "all", None),
    EachMember: lambda term: EachMember(term, Constant(), "mean"),
}
# do not pass features on
LOGITS_ALONE = {OverRows, EachMember}
# add up copies of a term without parameters
WITHOUT_PARAMETERS = {EachMember}


class Spy(Term):
    """Notes what it is given."""

    def __init__(self, roles: tuple[str, ...] = (), parameters: bool = True):
        super().__init__()
        self.roles, self.seen = roles, dict[str, Any]()
        self.learns = parameters

    def student_roles(self) -> tuple[str, ...]:
        return self.roles

    def teacher_roles(self) -> tuple[str, ...]:
        return self.roles

    def attach(self, student: nn.Module, teacher: nn.Module | None) -> None:
        self.seen["attach"] = student, teacher

    def build(self, student: Shapes, teacher: Shapes | None, spec: DataSpec) -> None:
        self.seen["build"] = student, teacher, spec
        if self.learns:
            self.scale = nn.Parameter(torch.ones(()))
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch, progress: Progress) -> Tensor:
        self.steps += 1
        rows = (student.logits - teacher.logits).square().sum(1)
        return rows * self.scale if self.learns else rows


@pytest.fixture(params=WRAPPERS, ids=lambda wrapper: wrapper.__name__)
def wrapper(request: pytest.FixtureRequest) -> type[Term]:
    torch.manual_seed(0)
    return request.param


def built(wrapper: type[Term]) -> tuple[Term, Spy, tuple[nn.Module, nn.Module]]:
    spy = Spy(parameters=wrapper not in WITHOUT_PARAMETERS)
    term = WRAPPERS[wrapper](spy)
    nets = Headed(4, CLASSES, torch.float32), Headed(6, CLASSES, torch.float32)
    term.attach(*nets)
    rows = (1, CLASSES) if wrapper is OverRows else (CLASSES,)
    term.build(Shapes(rows, STUDENT), Shapes(rows, TEACHER), SPEC)
    return term, spy, nets


def data(wrapper: type[Term]) -> tuple[Outputs, Outputs, Batch]:
    student, teacher = (random_outputs(6, CLASSES, shapes, torch.float32) for shapes in (STUDENT, TEACHER))
    if wrapper is OverRows:
        student, teacher = (Outputs(each.logits, owner=torch.arange(6)) for each in (student, teacher))
    return student, teacher, Batch.of_classes(torch.zeros(6, 1), torch.arange(6) % CLASSES, torch.arange(6))


def test_every_wrapper_is_under_law():
    for module in pkgutil.walk_packages(kdx.losses.__path__, "kdx.losses."):
        importlib.import_module(module.name)
    found, heads = set[type[Term]](), [Term]
    while heads:
        children = [c for c in heads.pop().__subclasses__() if c.__module__.startswith("kdx.losses")]
        heads += children
        found.update(c for c in children if "term" in c.__init__.__code__.co_varnames and c is not Wrapper)
    assert found == set(WRAPPERS)


def test_the_inner_term_is_attached_to_the_networks(wrapper: type[Term]):
    _, spy, nets = built(wrapper)
    assert spy.seen["attach"] == nets


def test_the_inner_term_is_built_for_the_same_shapes_and_data(wrapper: type[Term]):
    _, spy, _ = built(wrapper)
    student, teacher, spec = spy.seen["build"]
    assert (student.logits, teacher.logits, spec) == ((CLASSES,), (CLASSES,), SPEC)
    if wrapper not in LOGITS_ALONE:
        assert (student.features, teacher.features) == (STUDENT, TEACHER)


def test_it_names_the_roles_of_the_inner_term(wrapper: type[Term]):
    if wrapper in LOGITS_ALONE:
        with pytest.raises(ValueError, match="logits"):
            WRAPPERS[wrapper](Spy(("stage1",)))
        return
    term = WRAPPERS[wrapper](Spy(("stage1",)))
    assert "stage1" in term.student_roles() and "stage1" in term.teacher_roles()


def test_it_says_what_the_inner_term_needs(wrapper: type[Term]):
    spy = Spy(parameters=wrapper not in WITHOUT_PARAMETERS)
    spy.needs_teacher, spy.keyed_by_index = False, True
    if wrapper in LOGITS_ALONE:
        with pytest.raises(ValueError):
            WRAPPERS[wrapper](spy)
        return
    term = WRAPPERS[wrapper](spy)
    assert (term.needs_teacher, term.keyed_by_index) == (False, True)


def test_it_moves_with_the_inner_term(wrapper: type[Term]):
    term, spy, _ = built(wrapper)
    term.to(torch.float64)
    assert all(t.dtype == torch.float64 for t in (*spy.parameters(), *spy.buffers()))
    term.to("meta")
    assert all(t.device.type == "meta" for t in (*spy.parameters(), *spy.buffers()))
    term.eval()
    assert not spy.training


def test_a_checkpoint_holds_the_inner_terms_state(wrapper: type[Term]):
    first, spy, _ = built(wrapper)
    first(*data(wrapper), START)
    assert spy.steps > 0
    second, other, _ = built(wrapper)
    second.load_state_dict(first.state_dict())
    assert other.steps == spy.steps


def test_gradients_reach_the_inner_terms_parameters_and_the_student(wrapper: type[Term]):
    term, spy, _ = built(wrapper)
    student, teacher, batch = data(wrapper)
    leaf = student.logits.requires_grad_()
    features = {role: f.requires_grad_() for role, f in student.features.items()}
    term(Outputs(leaf, features, owner=student.owner), teacher, batch, START).sum().backward()
    assert all(p.grad is not None and p.grad.abs() > 0 for p in spy.parameters())
    assert any(t.grad is not None and t.grad.abs().sum() > 0 for t in (leaf, *features.values()))
    assert teacher.logits.grad is None
    assert not any(module in (term.children()) for module in spy.seen["attach"])


def test_it_relates_examples_where_the_inner_term_does(wrapper: type[Term]):
    """`Method.relating` looks at all modules, so the inner term must be one."""
    term, spy, _ = built(wrapper)
    assert spy in set(term.modules())
