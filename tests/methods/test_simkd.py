from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from kdx.core.batch import Batch
from kdx.core.errors import UserError
from kdx.core.schedule import Progress
from kdx.losses.features.map_mse import MapMSE
from kdx.methods.simkd import SimKD
from kdx.models.cifar.mobilenetv2 import MobileNetV2
from kdx.models.cifar.resnet import ResNet
from kdx.models.small import MLP
from kdx.models.teachers.frozen import Frozen
from kdx.models.weights import save_weights
from kdx.tasks.classes import image_classes

CLASSES = 5
SPEC = image_classes(CLASSES, (3, 16, 16), 20, (0.0,) * 3, (1.0,) * 3, torch.arange(20) % CLASSES)
START = Progress(0, 10, 10)


def built(student: Any = None, teacher: Any = None) -> SimKD:
    torch.manual_seed(0)
    student = ResNet(8, [4, 4, 8, 8], CLASSES, 3) if student is None else student
    teacher = ResNet(8, [6, 6, 10, 10], CLASSES, 3) if teacher is None else teacher
    terms = {"simkd": MapMSE("final", "final")}
    own = dict(student=student, teacher=Frozen(teacher, None, None), spec=SPEC, terms=terms, weights={"simkd": 1.0})
    return SimKD("final", "final", 2, temperature=None, **own)


def batch(size: int = 6) -> Batch:
    return Batch.of_classes(torch.randn(size, 3, 16, 16), torch.arange(size) % CLASSES, torch.arange(size))


def test_logits_are_the_teachers_classifier_on_the_projected_map():
    method, examples = built(), batch()
    method.student.eval()
    outputs = method.student(examples.inputs)
    projected = method.student.projector(method.student.net(examples.inputs).feature("final"))
    torch.testing.assert_close(outputs.logits, method.teacher.head(projected.mean((2, 3))))
    torch.testing.assert_close(outputs.feature("final"), projected)
    torch.testing.assert_close(method.student.head(outputs.feature("pooled")), outputs.logits)


def test_a_perfect_projection_is_the_teacher():
    method, examples = built(), batch()
    method.eval()
    theirs = method.teacher(examples.inputs).feature("final")
    torch.testing.assert_close(method.student.head(theirs.mean((2, 3))), method.teacher(examples.inputs).logits)


def test_learns_student_and_projector_but_no_classifier():
    method = built()
    before = {k: v.clone() for k, v in method.state_dict().items() if "head" in k or k.startswith("teacher")}
    method(batch(), START).terms["simkd"].backward()
    names = {name for name, p in method.named_parameters() if p.requires_grad}
    assert {n for n, p in method.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0} == names
    assert {n.split(".")[1] for n in names} == {"net", "projector"}
    assert not any(n.startswith(("student.net.fc", "student.head")) for n in names)
    assert all(torch.equal(method.state_dict()[k], v) for k, v in before.items())


def test_the_export_holds_student_projector_and_classifier(tmp_path):
    method, examples = built(), batch()
    method(examples, START).terms["simkd"].backward()
    save_weights(tmp_path / "student.safetensors", method.student, {})
    saved = load_file(tmp_path / "student.safetensors")
    assert {name.split(".")[0] for name in saved} == {"net", "projector", "head"}
    other = built(ResNet(8, [4, 4, 8, 8], CLASSES, 3), ResNet(8, [6, 6, 10, 10], CLASSES, 3))
    other.student.load_state_dict(saved)
    method.eval(), other.eval()
    assert torch.equal(other.student(examples.inputs).logits, method.student(examples.inputs).logits)


def test_a_larger_map_is_pooled_to_the_teachers():
    method = built(teacher=MobileNetV2(6, 0.5, CLASSES, 3))
    student, teacher = method.outputs(batch())
    assert student.feature("final").shape == teacher.feature("final").shape
    method = built(MobileNetV2(6, 0.5, CLASSES, 3))
    assert method(batch(), START).terms["simkd"].isfinite()


def test_refuses_networks_without_a_last_map():
    with pytest.raises(UserError, match="SimKD reads feature maps .*, but the student's 'stage1' is"):
        built(MLP([7], 0.0, "relu", CLASSES, (3, 16, 16)))


def test_a_teacher_without_a_last_map_gives_the_vector_that_its_classifier_reads():
    method = built(teacher=MLP([7], 0.0, "relu", CLASSES, (3, 16, 16)))
    assert method.student(batch().inputs).feature("pooled").shape[1] == 7
    assert method(batch(), START).terms["simkd"].isfinite()
