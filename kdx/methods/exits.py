"""A network whose last stage teaches its earlier stages."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from kdx.core.batch import Batch
from kdx.core.errors import UserError
from kdx.core.method import Method
from kdx.core.outputs import Outputs, Step
from kdx.core.ranges import PartialFraction, Positive
from kdx.core.schedule import Progress, Schedule, Weight, at
from kdx.core.spec import DataSpec
from kdx.losses.base.adapters import Norm
from kdx.losses.features.byot import active_difference
from kdx.losses.logits.cross_entropy import CrossEntropy
from kdx.losses.logits.kd import kl_divergence
from kdx.methods.term_sum import check_names, temperature_report, temperatures_in_use
from kdx.models.probe import probe

TERMS = {"ce", "kd", "hint"}


class Exits(Method):
    """Runs the student with a classifier after each inner stage; the last classifier teaches the others.

    The exits learn from the labels, from the last classifier's predictions and from the vector that it reads, both
    detached. The deliverable is the student alone, a plain network.

    Args:
        student: A network that returns `Outputs` with stages and "pooled".
        spec: Facts of the training data.
        weights: A number or a schedule for "ce" (summed over all classifiers), "kd" and "hint" (summed over the exits).
        temperature: T of both softmaxes in "kd"; a number or a schedule.
        label_smoothing: Share of the label's mass that is spread over all classes.
        roles: The stages with an exit; None for all but the last.

    Raises:
        UserError: Names of weights that differ from those of the terms, or a network without such stages.

    References:
        Zhang, Song, Gao, Chen, Bao, Ma, "Be Your Own Teacher: Improve the Performance of Convolutional Neural Networks
        via Self Distillation", 2019. https://arxiv.org/abs/1905.08094
    """

    uses_teacher = False
    frozen = ()
    has_peers = True

    def __init__(
        self,
        student: nn.Module,
        spec: DataSpec,
        weights: Mapping[str, Weight],
        temperature: Positive | Schedule,
        label_smoothing: PartialFraction | Schedule,
        roles: Sequence[str] | None,
    ):
        super().__init__()
        check_names(TERMS, weights)
        self.student = student
        self.weights, self.temperature = dict(weights), temperature
        self.temperatures = temperatures_in_use(temperature)
        self.ce = CrossEntropy(label_smoothing=label_smoothing)
        shapes = probe(student, spec.inputs)
        try:
            self.roles = shapes.inner_stages("student") if roles is None else list(roles)
            width = shapes.feature("pooled", "student")[0]
            last = shapes.feature("last", "student")
            exits = [Exit(shapes.feature(r, "student"), last, width, spec.num_classes) for r in self.roles]
        except ValueError as error:
            raise UserError(f"this student cannot be its own teacher: {error}") from error
        self.exits = nn.ModuleList(exits)

    def models(self) -> Mapping[str, nn.Module]:
        exits = zip(self.roles, self.exits, strict=True)
        return {"student": self.student, **{f"exit{i}": Early(self.student, r, e) for i, (r, e) in enumerate(exits, 1)}}

    def forward(self, batch: Batch, progress: Progress) -> Step:
        raw = self.student(batch.inputs)
        exits = [e(raw.feature(role)).float() for role, e in zip(self.roles, self.exits, strict=True)]
        deepest, temperature = raw.float(), at(self.temperature, progress)
        vector = deepest.feature("pooled")
        with torch.autocast(batch.device.type, enabled=False):
            values = {
                "ce": [self.ce(e, e, batch, progress) for e in (deepest, *exits)],
                "kd": [kl_divergence(e.logits, deepest.logits, temperature, "batchmean") for e in exits],
                "hint": [active_difference(e.feature("pooled"), vector) for e in exits],
            }
            terms = {name: torch.stack(of).sum(0).mean() for name, of in values.items()}
        return Step(terms, temperature_report(self.temperatures, progress), deepest.detach())


class Exit(nn.Module):
    """A classifier of a stage's output: separable convolutions down to the last stage's size, pooling, a linear layer.

    Vectors pass through one linear layer and a ReLU instead of the convolutions.

    Args:
        shape: Shape of the stage's output, without the batch axis.
        last: Shape of the last stage's output.
        width: Length of the vector that the network's own classifier reads.
        num_classes: C.

    Raises:
        ValueError: The features are neither maps nor vectors.
    """

    def __init__(self, shape: tuple[int, ...], last: tuple[int, ...], width: int, num_classes: int):
        super().__init__()
        if len(shape) not in (1, 3):
            raise ValueError(f"an exit reads maps or vectors, but a stage puts out [B, {', '.join(map(str, shape))}]")
        if len(shape) == 1:
            self.body = nn.Sequential(nn.Linear(shape[0], width), nn.ReLU())
        else:
            channels, side = shape[0], shape[1]
            layers: list[nn.Module] = []
            while side > (last[1] if len(last) == 3 else 1):
                layers += separable(channels, min(2 * channels, width), stride=2)
                channels, side = min(2 * channels, width), (side + 1) // 2
            layers += separable(channels, width, stride=1)
            self.body = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Outputs:
        pooled = self.body(x)
        return Outputs(self.head(pooled), {"pooled": pooled})


class Early(nn.Module):
    """The network up to an exit, for evaluation.

    Args:
        net: The network.
        role: The stage that the exit reads.
        exit: The exit.
    """

    def __init__(self, net: nn.Module, role: str, exit: nn.Module):
        super().__init__()
        self.net, self.role, self.exit = net, role, exit

    def forward(self, x: Tensor) -> Outputs:
        return self.exit(self.net(x).feature(self.role))


def separable(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
    """A depthwise 3 x 3 convolution and a 1 x 1 convolution, each with batch norm, the second with ReLU."""
    return [
        nn.Conv2d(inputs, inputs, 3, stride, padding=1, groups=inputs, bias=False),
        Norm(inputs),
        nn.Conv2d(inputs, outputs, 1, bias=False),
        Norm(outputs),
        nn.ReLU(),
    ]
