import pytest
import torch
from law_case import CLASSES, SPEC, START, Headed
from loss_references import random_outputs
from torch import nn

from kdx.core.batch import Batch
from kdx.core.outputs import Outputs, Shapes
from kdx.losses.features.srrl import SRRL

SHAPES = Shapes((CLASSES,), {"pooled": (6,)})
LABELS = torch.zeros(4, dtype=torch.int64)
BATCH = Batch.of_classes(torch.zeros(4, 1), LABELS, LABELS)


def built(feature_weight: float, logit_weight: float) -> SRRL:
    term = SRRL("pooled", "pooled", feature_weight, logit_weight)
    term.attach(Headed(6, CLASSES, torch.float32), Headed(6, CLASSES, torch.float32))
    term.build(SHAPES, SHAPES, SPEC)
    return term


def test_a_student_whose_connected_features_are_the_teachers_has_nothing_to_learn():
    term = built(1.0, 1.0)
    term.connector = nn.Identity()
    outputs = random_outputs(4, CLASSES, dict(SHAPES.features), torch.float32)
    (head,) = term._head
    teacher = Outputs(head(outputs.feature("pooled")), outputs.features)
    assert term(outputs, teacher, BATCH, START).abs().max() < 1e-12


def test_the_parts_add_up_by_their_weights():
    torch.manual_seed(0)
    first, second, both = built(1.0, 0.0), built(0.0, 1.0), built(2.0, 3.0)
    for term in (second, both):
        term.load_state_dict(first.state_dict())
    student, teacher = (random_outputs(4, CLASSES, dict(SHAPES.features), torch.float32) for _ in range(2))
    a, b, c = (term(student, teacher, BATCH, START) for term in (first, second, both))
    torch.testing.assert_close(c, 2 * a + 3 * b)


def test_the_teachers_classifier_gets_no_gradient_and_is_no_part_of_the_term():
    term = built(1.0, 1.0)
    student, teacher = (random_outputs(4, CLASSES, dict(SHAPES.features), torch.float32) for _ in range(2))
    term(student, teacher, BATCH, START).mean().backward()
    (head,) = term._head
    assert head.weight.grad is None
    assert not [n for n, _ in term.named_parameters() if "head" in n]


def test_refuses_a_teachers_map_and_a_feature_that_its_classifier_does_not_read():
    term = SRRL("pooled", "pooled", 1.0, 1.0)
    term.attach(nn.Identity(), Headed(7, CLASSES, torch.float32))
    with pytest.raises(ValueError, match="reads 7 channels"):
        term.build(SHAPES, SHAPES, SPEC)
    with pytest.raises(ValueError, match="a vector of the teacher"):
        term.build(SHAPES, Shapes((CLASSES,), {"pooled": (6, 2, 2)}), SPEC)
