"""The student alone: no teacher is asked for, and none is tolerated."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from kdx.core.batch import Batch
from kdx.core.errors import UserError
from kdx.core.outputs import Outputs
from kdx.core.schedule import Linear, Progress
from kdx.losses.logits.cross_entropy import CrossEntropy
from kdx.losses.logits.kd import KD
from kdx.losses.logits.tfkd import VirtualTeacher, virtual_divergence
from kdx.methods.alone import Alone
from kdx.methods.term_sum import check_names, temperatures_in_use
from kdx.tasks.classes import image_classes

SPEC = image_classes(5, (3, 2, 2), 10, (0.0,) * 3, (1.0,) * 3)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(12, 5)

    def forward(self, x: torch.Tensor) -> Outputs:
        return Outputs(self.head(x.flatten(1)))


def test_terms_are_the_students_own():
    temperature = Linear(start=1.0, end=21.0, until=10)
    terms = {"ce": CrossEntropy(0.0), "virtual": VirtualTeacher(0.9, temperature, "distribution")}
    alone = Alone(Net(), SPEC, terms, {"ce": 0.9, "virtual": 0.1}, temperature)
    x, y = torch.randn(8, 3, 2, 2), torch.arange(8) % 5
    step = alone(Batch.of_classes(x, y, y), Progress(5, 10, 10))
    z = alone.student(x).logits
    torch.testing.assert_close(step.terms["ce"], F.cross_entropy(z, y))
    torch.testing.assert_close(step.terms["virtual"], virtual_divergence(z, y, 0.9, 11.0, "distribution").mean())
    assert step.report["temperature"] == 11.0
    assert list(alone.models()) == ["student"] and not alone.uses_teacher


@pytest.mark.parametrize(
    ("shared", "own", "reported"),
    [
        (Linear(1.0, 21.0, 10), Linear(1.0, 21.0, 10), {"temperature": 11.0}),  # equal copies, as interpolation builds
        (Linear(1.0, 21.0, 10), Linear(1.0, 5.0, 10), {"temperature/virtual": 3.0}),
        (Linear(1.0, 21.0, 10), 4.0, {}),
        (4.0, Linear(1.0, 5.0, 10), {"temperature/virtual": 3.0}),
        (None, 4.0, {}),
    ],
)
def test_the_report_holds_the_temperatures_that_terms_use(shared, own, reported):
    torch.manual_seed(0)
    terms = {"virtual": VirtualTeacher(0.9, own, "distribution")}
    x, y = torch.randn(8, 3, 2, 2), torch.arange(8) % 5
    step = Alone(Net(), SPEC, terms, {"virtual": 1.0}, shared)(Batch.of_classes(x, y, y), Progress(5, 10, 10))
    assert {name: value.item() for name, value in step.report.items()} == reported


def test_a_term_with_the_shared_temperature_keeps_it_in_the_report_beside_others():
    shared = Linear(1.0, 21.0, 10)
    terms = {"a": VirtualTeacher(0.9, shared, "distribution"), "b": VirtualTeacher(0.9, 2.0, "distribution")}
    assert temperatures_in_use(shared, terms) == {"temperature": shared}


def test_a_term_that_needs_a_teacher_and_stray_weights_are_refused():
    with pytest.raises(UserError, match="the term 'kd' needs a teacher, but this method has none"):
        Alone(Net(), SPEC, {"kd": KD(4.0, "batchmean")}, {"kd": 1.0}, None)
    with pytest.raises(UserError, match="on one side only: virtual"):
        Alone(Net(), SPEC, {"ce": CrossEntropy(0.0)}, {"ce": 1.0, "virtual": 1.0}, None)


def test_a_run_without_a_teacher_is_the_same_run_with_any(tiny):
    from kdx.config.identity import identity

    configs = [tiny("method=tfkd_reg", f"teacher.net.widths={widths}") for widths in ("[4,4,8,8]", "[6,6,6,6]")]
    assert all(config.teacher is None for config in configs)
    assert len({identity(config) for config in configs}) == 1


@pytest.mark.parametrize("name", ["keys", "values", "float"])
def test_a_term_cannot_have_a_name_that_torch_reserves(name: str):
    with pytest.raises(UserError, match=f"a term cannot be called '{name}'"):
        check_names([name], [name])
