"""Every term on logits teaches with few classes, or says why it cannot."""

import laws_logits
import pytest
import torch
from law_case import START, STUDENT, TEACHER, build
from loss_references import random_outputs

from kdx.core.batch import Batch
from kdx.core.outputs import Outputs
from kdx.losses.wrappers.logit_standardization import standardize
from kdx.tasks.classes import image_classes

SIZE = 6
# a term on logits of two networks says nothing about two classes
SILENT_AT_TWO = {"dkd", "tckd", "nckd", "each of one", "dist", "lskd", "nkd", "dkd ls", "mlkd ls"}


@pytest.mark.parametrize("classes", [2, 3, 10])
@pytest.mark.parametrize("name", laws_logits.TERMS)
def test_unequal_networks_get_a_gradient_or_a_refusal(name: str, classes: int):
    torch.manual_seed(0)
    labels = torch.arange(SIZE) % classes
    spec = image_classes(classes, (3, 8, 8), 100, (0.0,) * 3, (1.0,) * 3, torch.arange(100) % classes)
    mine, theirs = (random_outputs(SIZE, classes, shapes) for shapes in (STUDENT, TEACHER))
    batch = Batch.of_classes(torch.zeros(SIZE, 1), labels, torch.arange(SIZE)).with_targets(
        values=torch.randn(SIZE, classes).double(), presence=torch.rand(SIZE, classes).double()
    )
    try:
        term = build(laws_logits.TERMS[name], STUDENT, TEACHER, spec=spec)
    except ValueError as error:
        assert classes == 2 and name in SILENT_AT_TWO, f"{error}; see SILENT_AT_TWO in {__file__}"
        assert "\n" not in str(error) and "classes" in str(error)
        return
    assert classes > 2 or name not in SILENT_AT_TWO
    student = Outputs(mine.logits.requires_grad_(), {role: f.requires_grad_() for role, f in mine.features.items()})
    term(student, theirs, batch, START).mean().backward()
    reached = [t.grad for t in (student.logits, *student.features.values()) if t.grad is not None]
    moved = sum(g.abs().sum().item() for g in reached)
    assert moved > 1e-3, f"{name} has no gradient for {classes} classes: refuse them in `build` (SILENT_AT_TWO)"


def test_two_standardised_logits_are_the_same_for_any_network():
    logits = torch.tensor([[1.0, 5.0], [-3.0, -2.0], [7.0, 0.5]]).double()
    expected = torch.tensor([[-1.0, 1.0], [-1.0, 1.0], [1.0, -1.0]]).double() / 2**0.5
    torch.testing.assert_close(standardize(logits), expected, rtol=1e-6, atol=0)
