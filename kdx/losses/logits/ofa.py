"""OFA: soft labels with more weight on the label, for the logits and for heads on the student's stages."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from kdx.core.batch import Batch
from kdx.core.outputs import Outputs, Shapes
from kdx.core.ranges import Positive
from kdx.core.schedule import Progress, Schedule, at
from kdx.core.spec import DataSpec
from kdx.losses.base.checks import require_labels, require_map, require_same_logits, require_teacher
from kdx.losses.base.numerics import full_precision, soft_log_probs
from kdx.losses.base.roles import inner_roles
from kdx.losses.base.term import Term
from kdx.losses.logits.dkd import is_target


@full_precision
def enhanced_cross_entropy(
    student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, exponent: float, temperature: float
) -> Tensor:
    """`-((1 + p_t)^e - 1) log q_t - sum of p_i^e log q_i over the other classes`.

    With e = 1 it is soft cross-entropy. A larger e moves weight from the other classes to the label. There is no factor
    of T^2, as in the authors' code, where T is 1.

    Args:
        student_logits: [B, C].
        teacher_logits: [B, C]; gets no gradient.
        labels: Class indices [B].
        exponent: e, above 0.
        temperature: T, above 0.

    Returns:
        [B], in nats.

    References:
        Hao, Guo, Han, Tang, Hu, Wang, Xu, "One-for-All: Bridge the Gap Between Heterogeneous Architectures in
        Knowledge Distillation", 2023. https://arxiv.org/abs/2310.19444

    Example:
        >>> z, v = torch.randn(2, 5), torch.randn(2, 5)
        >>> soft = -(v.softmax(1) * z.log_softmax(1)).sum(1)
        >>> torch.allclose(enhanced_cross_entropy(z, v, torch.tensor([0, 1]), 1.0, 1.0), soft, atol=1e-6)
        True
    """
    p = soft_log_probs(teacher_logits.detach(), temperature).exp()
    log_q = soft_log_probs(student_logits, temperature)
    # expm1 and log1p: (1 + p)^e - 1 would round a small p to 0
    weights = torch.where(is_target(p, labels), torch.expm1(exponent * p.log1p()), p.pow(exponent))
    return -(weights * log_q).sum(1)


class OFA(Term):
    """Cross-entropy with soft labels that have more weight on the label.

    Where samples are mixed, the label is the dominant class.

    Args:
        exponent: e; 1 is soft cross-entropy. A number or a schedule.
        temperature: T, a number or a schedule.
    """

    def __init__(self, exponent: Positive | Schedule, temperature: Positive | Schedule):
        super().__init__()
        self.exponent, self.temperature = exponent, temperature

    def build(self, student: Shapes, teacher: Shapes | None, spec: DataSpec) -> None:
        require_same_logits(student, teacher, "OFA")
        require_labels(spec, "OFA")

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch, progress: Progress) -> Tensor:
        numbers = at(self.exponent, progress), at(self.temperature, progress)
        return enhanced_cross_entropy(student.logits, teacher.logits, batch.labels, *numbers)


def _separable(inputs: int, outputs: int) -> nn.Sequential:
    """Halves the map by two separable convolutions, each with batch norm and ReLU."""
    halves: list[nn.Module] = []
    for channels, stride in ((inputs, 2), (outputs, 1)):
        halves += [
            nn.Conv2d(inputs, inputs, 3, stride, padding=1, groups=inputs, bias=False),
            nn.Conv2d(inputs, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
        ]
    return nn.Sequential(*halves)


def stage_head(channels: int, halvings: int, width: int, num_classes: int) -> nn.Sequential:
    """A classifier on the map of a stage: the rest of the network's depth, then pooling and projection.

    Args:
        channels: Channels of the map.
        halvings: Number of stages that follow. Each halves the map and doubles its channels, the last one to `width`.
            With 0, a 1 x 1 convolution maps to `width`.
        width: Channels before the projection.
        num_classes: C.

    Example:
        >>> stage_head(16, 2, 64, 10)(torch.zeros(2, 16, 8, 8)).shape
        torch.Size([2, 10])
    """
    layers: list[nn.Module] = []
    for left in range(halvings, 0, -1):
        layers.append(_separable(channels, width if left == 1 else 2 * channels))
        channels *= 2
    layers = layers or [nn.Conv2d(channels, width, 1)]
    head = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes))
    for m in head.modules():
        if isinstance(m, nn.Conv2d):
            nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(m, nn.Linear):
            nn.init.trunc_normal_(m.weight, std=0.02)
            nn.init.zeros_(m.bias)
    return head


class OFAStages(Term):
    """The loss of `OFA` on logits that heads give at stages of the student, summed over stages.

    The heads are trained with the student and are not part of the deliverable. They read maps; tokens that form a grid
    are maps here, and the authors' heads for tokens, made of transformer blocks, are not implemented.

    Args:
        exponents: e, a number or a schedule, for a head on each stage of the student but the stem; a mapping chooses
            stages and gives each its own.
        temperature: T, a number or a schedule.
    """

    def __init__(
        self,
        exponents: Positive | Schedule | Mapping[str, Positive | Schedule],
        temperature: Positive | Schedule,
    ):
        super().__init__()
        if isinstance(exponents, Mapping) and not exponents:
            raise ValueError("OFA needs at least one stage, such as {stage1: 1.0}")
        self.given, self.temperature = exponents, temperature
        self.exponents = dict(exponents) if isinstance(exponents, Mapping) else {}
        self.heads = nn.ModuleDict()

    def student_roles(self) -> tuple[str, ...]:
        return tuple(self.exponents)

    def build(self, student: Shapes, teacher: Shapes | None, spec: DataSpec) -> None:
        teacher = require_teacher(teacher, "OFA")
        if not isinstance(self.given, Mapping):
            self.exponents = dict.fromkeys(inner_roles(student, "student"), self.given)
        maps = {role: require_map(student.feature(role, "student"), role, "student", "OFA") for role in self.exponents}
        # the larger width of the two networks' pooled features
        width = max(student.feature("pooled", "student")[-1], teacher.feature("pooled", "teacher")[-1])
        require_same_logits(student, teacher, "OFA")
        require_labels(spec, "OFA")
        last = inner_roles(student, "student")[-1]
        heads = {}
        for role, shape in maps.items():
            halvings = _depth(last) - _depth(last if role == "last" else role)
            heads[role] = stage_head(shape[0], halvings, width, spec.num_classes)
        self.heads = nn.ModuleDict(heads)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch, progress: Progress) -> Tensor:
        temperature = at(self.temperature, progress)
        read = teacher.logits, batch.labels
        rows = [
            enhanced_cross_entropy(head(student.feature(role)), *read, at(self.exponents[role], progress), temperature)
            for role, head in self.heads.items()
        ]
        return torch.stack(rows).sum(0)


def _depth(role: str) -> int:
    """Number of the stage that a role names. Raises ValueError where it names none."""
    digits = role.removeprefix("stage")
    if not digits.isdigit():
        raise ValueError(f"OFA puts heads on stages, such as 'stage1'; '{role}' is none")
    return int(digits)
