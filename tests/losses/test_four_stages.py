"""Terms with default roles on networks of three and four stages: every stage is read, and gets a gradient."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from kdx.core.batch import Batch
from kdx.core.outputs import Outputs, Shapes
from kdx.core.schedule import Progress
from kdx.losses.base.pairs import Paired
from kdx.losses.features.ab import AB
from kdx.losses.features.at import AT
from kdx.losses.features.nst import NST
from kdx.losses.features.ofd import OFD
from kdx.losses.features.reviewkd import ReviewKD
from kdx.losses.features.vid import VID
from kdx.models.cifar.mobilenetv2 import MobileNetV2
from kdx.models.cifar.resnet import ResNet
from kdx.models.cifar.resnet_large import ResNetLarge
from kdx.models.cifar.vgg import VGG
from kdx.tasks.classes import image_classes

CLASSES = 5
SPEC = image_classes(CLASSES, (3, 32, 32), 100, (0.0,) * 3, (1.0,) * 3)


def vgg(width: int) -> nn.Module:
    return VGG(convs=(1,) * 5, widths=(width,) * 5, batch_norm=True, num_classes=CLASSES, in_channels=3)


def bottlenecks() -> nn.Module:
    return ResNetLarge(block="bottleneck", blocks=(1,) * 4, widths=(4, 4, 8, 8), num_classes=CLASSES, in_channels=3)


def mobile() -> nn.Module:
    return MobileNetV2(expansion=6, width=0.25, num_classes=CLASSES, in_channels=3)


def resnet(width: int) -> nn.Module:
    return ResNet(depth=8, widths=(width,) * 4, num_classes=CLASSES, in_channels=3)


PAIRS: dict[str, tuple[Callable[[], nn.Module], Callable[[], nn.Module], int]] = {
    "vgg to vgg": (lambda: vgg(8), lambda: vgg(4), 4),
    "vgg to mobilenetv2": (lambda: vgg(8), mobile, 4),
    "bottlenecks to mobilenetv2": (bottlenecks, mobile, 4),
    "bottlenecks to vgg": (bottlenecks, lambda: vgg(4), 4),
    "resnet to resnet": (lambda: resnet(8), lambda: resnet(4), 3),
}
TERMS: dict[str, Callable[[], Paired]] = {
    "AT": lambda: AT(None, 2.0),
    "NST": lambda: NST(None),
    "VID": lambda: VID(None, 5.0),
    "AB": lambda: AB(None, 1.0),
    "OFD": lambda: OFD(None),
    "ReviewKD": lambda: ReviewKD(None, 8),
}


@pytest.mark.parametrize("name", TERMS)
@pytest.mark.parametrize("pair", PAIRS)
def test_every_stage_is_read_and_learns(pair: str, name: str):
    torch.manual_seed(0)
    make_teacher, make_student, stages = PAIRS[pair]
    teacher, student, images = make_teacher().eval(), make_student(), torch.randn(2, 3, 32, 32)
    theirs: Outputs = teacher(images)
    mine: Outputs = student(images)
    term = TERMS[name]()
    term.attach(student, teacher)
    student_shapes, teacher_shapes = (
        Shapes((CLASSES,), {role: tuple(f.shape[1:]) for role, f in o.features.items()}) for o in (mine, theirs)
    )
    term.build(student_shapes, teacher_shapes, SPEC)
    read = [role for role in term.student_roles() if role != "pooled"]
    assert [role.removesuffix(".preact") for role in read] == [f"stage{i}" for i in range(1, stages + 1)]
    features = {role: feature.detach().requires_grad_() for role, feature in mine.features.items()}
    batch = Batch.of_classes(images, torch.arange(2), torch.arange(2))
    term(Outputs(mine.logits, features), theirs, batch, Progress(0, 1, 1)).sum().backward()
    for role in term.student_roles():
        gradient = features[role].grad
        assert gradient is not None and gradient.abs().sum() > 0, role
