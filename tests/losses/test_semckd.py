import pytest
import torch
from law_case import CLASSES, SPEC, START
from loss_references import random_outputs

from kdx.core.batch import Batch
from kdx.core.outputs import Shapes
from kdx.losses.features.semckd import SemCKD, among, calibrated

STUDENT = Shapes((CLASSES,), {"a": (3, 8, 8), "b": (4, 4, 4)})
TEACHER = Shapes((CLASSES,), {"a": (5, 8, 8), "b": (6, 4, 4), "c": (7, 2, 2)})


def built(batch_size: int) -> SemCKD:
    torch.manual_seed(0)
    term = SemCKD(["a", "b"], ["a", "b", "c"], batch_size, 2, 1.0)
    term.build(STUDENT, TEACHER, SPEC)
    return term


def test_equal_energies_make_a_mean_and_large_ones_a_choice():
    errors = torch.rand(2, 3, 4).double()
    torch.testing.assert_close(calibrated(errors, torch.full((2, 3, 4), 0.7).double(), 1.0), errors.mean((1, 2)))
    chosen = torch.tensor([3, 0, 1])
    energies = torch.nn.functional.one_hot(chosen, 4).double().expand(2, 3, 4)
    torch.testing.assert_close(calibrated(errors, energies, 1e-3), errors[:, torch.arange(3), chosen].mean(1))


def test_places_that_a_short_batch_lacks_count_as_zero():
    feature = torch.randn(3, 2, 4, 4)
    found = among(feature, 5)
    torch.testing.assert_close(found[:, :3], feature.flatten(1) @ feature.flatten(1).T)
    assert found.shape == (3, 5) and not found[:, 3:].any()


@pytest.mark.parametrize("size", [1, 5, 8])
def test_all_parts_learn_from_batches_of_any_size_up_to_the_whole(size: int):
    term = built(8)
    outputs = [random_outputs(size, CLASSES, dict(s.features), torch.float32) for s in (STUDENT, TEACHER)]
    labels = torch.zeros(size, dtype=torch.int64)
    term(*outputs, Batch.of_classes(torch.zeros(size, 1), labels, labels), START).mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in term.parameters())


def test_refuses_more_examples_than_it_was_built_for():
    outputs = [random_outputs(9, CLASSES, dict(s.features), torch.float32) for s in (STUDENT, TEACHER)]
    labels = torch.zeros(9, dtype=torch.int64)
    with pytest.raises(ValueError, match="batches of at most batch_size=8 examples, this one has 9"):
        built(8)(*outputs, Batch.of_classes(torch.zeros(9, 1), labels, labels), START)
