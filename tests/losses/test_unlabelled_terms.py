"""A term refuses examples without labels where it reads labels, and nowhere else."""

import laws_features
import laws_logits
import pytest
import torch
from law_case import CLASSES, SPEC, START, STUDENT, TEACHER, build
from loss_references import random_outputs

from kdx.core.batch import Batch
from kdx.tasks.classes import image_classes

TERMS = {**laws_logits.TERMS, **laws_features.TERMS}
LABELS, OTHERS = torch.tensor([0, 1, 2, 3, 4, 0]), torch.tensor([4, 1, 0, 2, 2, 3])
# refused whatever their exponent or weight, at 1 of which the label drops out
NEUTRAL = {"ofa soft ce", "sdd whole"}
KNOWN = torch.tensor([True, True, False, True, False, True])


def data_with(labels: torch.Tensor):
    """A data set of these labels, over and over."""
    repeated = labels.repeat(17)[:100]
    return image_classes(CLASSES, (3, 8, 8), 100, (0.0,) * 3, (1.0,) * 3, repeated)


def batch(labels: torch.Tensor) -> Batch:
    drawn = torch.Generator().manual_seed(0)
    values, presence = (make(6, CLASSES, generator=drawn).double() for make in (torch.randn, torch.rand))
    made = Batch.of_classes(torch.zeros(6, 1), labels, torch.arange(6))
    return made.with_targets(values=values, presence=presence)


@pytest.mark.parametrize("name", TERMS)
def test_a_refusal_is_that_of_a_term_that_reads_labels(name: str):
    torch.manual_seed(0)
    outputs = [random_outputs(6, CLASSES, shapes) for shapes in (STUDENT, TEACHER)]

    def rows(labels: torch.Tensor, spec=SPEC) -> torch.Tensor:
        torch.manual_seed(1)  # for the adapters
        term = build(TERMS[name], STUDENT, TEACHER, spec=spec).eval()
        with torch.no_grad():
            return term(*outputs, batch(labels), START)

    unlabelled = torch.where(KNOWN, LABELS, -1)
    try:
        found = rows(unlabelled, data_with(unlabelled))
    except ValueError as error:
        assert "label" in str(error)
        first, second = rows(LABELS, data_with(LABELS)), rows(OTHERS, data_with(OTHERS))
        assert (name in NEUTRAL) == torch.allclose(first, second), "it refuses unlabelled examples and reads no label"
        return
    whole, other = rows(LABELS, data_with(LABELS)), rows(OTHERS, data_with(OTHERS))
    if TERMS[name].make().skips_unlabelled:
        assert (found[~KNOWN] == 0).all()
        torch.testing.assert_close(found.mean(), whole[KNOWN].mean())  # the others count for them
        assert not torch.allclose(whole, other)
    else:
        assert torch.equal(found, whole) and torch.equal(whole, other)
