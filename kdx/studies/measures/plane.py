"""The distillation loss on the plane through a teacher, a student and the point where the student started."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from kdx.core.errors import UserError
from kdx.core.metric import Metric
from kdx.core.ranges import NonNegative, Positive, PositiveInt
from kdx.losses.logits.kd import kl_divergence
from kdx.models.between import combined
from kdx.models.tap import plain
from kdx.studies.measures.base import Examples, Scores, must_be_there, pair

INK = "#1f2933"


@dataclass(frozen=True, kw_only=True)
class LossPlane:
    """Distillation loss at three networks of one architecture, along the lines between them, and in their plane.

    Attributes:
        corners: Names of three networks; the first is the teacher, whose predictions the loss compares with.
        temperature: Temperature of the loss.
        points: Points on each side of the picture.
        margin: Distance of the picture's border to the networks, as a share of their extent.
        steps: Points between two networks at which the barrier is measured.

    References:
        Stanton, Izmailov, Kirichenko, Alemi, Wilson, "Does Knowledge Distillation Really Work?", 2021, figure 6.
        https://arxiv.org/abs/2106.05945
        Garipov et al., "Loss Surfaces, Mode Connectivity, and Fast Ensembling of DNNs", 2018 (the plane).
        https://arxiv.org/abs/1802.10026
    """

    metrics: ClassVar[Sequence[Metric]] = (
        Metric(name="loss", label="loss", digits=4, better="lower", shown=True),
        Metric(name="agreement", label="agreement", unit="%", digits=2, better="higher", shown=True),
        Metric(name="barrier", label="barrier", digits=4, shown=True),
        Metric(name="distance", label="distance", digits=3, shown=True),
    )
    notes: ClassVar[Sequence[str]] = (
        "loss: distillation loss towards the first network; A / B: barrier is the largest loss on the straight line of "
        "weights between A and B, minus the larger of its ends; distance is Euclidean",
    )

    corners: Sequence[str]
    temperature: Positive
    points: PositiveInt
    margin: NonNegative
    steps: PositiveInt

    def __call__(self, networks: Mapping[str, nn.Module], batches: Examples) -> Scores:
        surface = self._surface(networks, batches)
        scores: Scores = {}
        for name in self.corners:
            loss, agreement = surface({name: 1.0})
            scores[name] = {"loss": loss, "agreement": agreement}
        for i, one in enumerate(self.corners):
            for other in self.corners[i + 1 :]:
                shares = [step / (self.steps + 1) for step in range(1, self.steps + 1)]
                inner = [surface({one: 1 - share, other: share})[0] for share in shares]
                ends = max(scores[one]["loss"], scores[other]["loss"])
                far = (surface.vector(one) - surface.vector(other)).norm()
                scores[pair(one, other)] = {"barrier": max(inner) - ends, "distance": float(far)}
        return scores

    def draw(self, networks: Mapping[str, nn.Module], batches: Examples, path: Path) -> None:
        """Draw the loss as contours, with the three networks."""
        import matplotlib

        matplotlib.use("Agg")
        import numpy as np
        from matplotlib import pyplot as plt
        from matplotlib.colors import LogNorm

        surface = self._surface(networks, batches)
        # orthogonal axes of unit length: the first from the third corner to the first, see Garipov et al.
        teacher, student, start = (surface.vector(name) for name in self.corners)
        first = (teacher - start) / (teacher - start).norm()
        rest = (student - start) - (student - start).dot(first) * first
        second = rest / rest.norm().clamp(min=1e-12)
        places = {
            name: (float((v - start).dot(first)), float((v - start).dot(second)))
            for name, v in zip(self.corners, (teacher, student, start), strict=True)
        }
        xs, ys = ([place[axis] for place in places.values()] for axis in (0, 1))
        x, y = (self._range(values) for values in (xs, ys))
        losses = np.empty((self.points, self.points))
        (tx, _), (sx, sy), _ = places.values()
        for row, b in enumerate(y):
            for column, a in enumerate(x):
                of_student = b / sy
                of_teacher = (a - of_student * sx) / tx
                weights = dict(zip(self.corners, (of_teacher, of_student, 1 - of_teacher - of_student), strict=True))
                losses[row, column] = surface(weights)[0]
        height = 5.2 * (y[-1] - y[0]) / (x[-1] - x[0])
        figure, axis = plt.subplots(figsize=(6.8, min(max(height, 2.0), 7.0) + 0.9), layout="constrained")
        floor = max(losses.min(), losses.max() * 1e-4)
        levels = np.geomspace(floor, losses.max(), 16)
        filled = axis.contourf(x, y, losses.clip(floor), levels=levels, norm=LogNorm(), cmap="Blues")
        bar = figure.colorbar(filled, ax=axis, label="distillation loss")
        ticks = levels[::3]
        bar.set_ticks(ticks, labels=[f"{tick:.3g}" for tick in ticks])
        bar.minorticks_off()
        for name, (a, b) in places.items():
            axis.plot(a, b, "o", color=INK, markersize=6)
            down = -14 if b > (y[0] + y[-1]) / 2 else 8
            box = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1}
            axis.annotate(
                *(name, (a, b), (0, down)), textcoords="offset points", ha="center", color=INK, fontsize=9, bbox=box
            )
        axis.set_xlabel("distance in weights", color=INK)
        axis.set_ylabel("distance in weights", color=INK)
        axis.set_aspect("equal")
        axis.set_title("Distillation loss on the plane of three networks", loc="left", fontsize=11, color=INK)
        figure.savefig(path, dpi=150, bbox_inches="tight")
        plt.close(figure)

    def _range(self, values: Sequence[float]) -> list[float]:
        low, high = min(values), max(values)
        border = self.margin * (high - low)
        return torch.linspace(low - border, high + border, self.points).tolist()

    def _surface(self, networks: Mapping[str, nn.Module], batches: Examples) -> "Surface":
        for name in self.corners:
            must_be_there(name, networks, "corners")
        return Surface({name: networks[name] for name in self.corners}, batches, self.temperature)


class Surface:
    """Distillation loss and agreement at weighted sums of networks' weights.

    Args:
        networks: Of one architecture; the first is the teacher.
        batches: Examples.
        temperature: Temperature of the loss.

    Raises:
        UserError: The networks have different weights by name or shape.
    """

    def __init__(self, networks: Mapping[str, nn.Module], batches: Examples, temperature: float):
        self.states = {name: plain(net).state_dict() for name, net in networks.items()}
        self.teacher = next(iter(networks))
        shapes = {name: {key: value.shape for key, value in of.items()} for name, of in self.states.items()}
        for name, of in shapes.items():
            if of != shapes[self.teacher]:
                raise UserError(
                    f"study.measure.corners: '{name}' and '{self.teacher}' are of different architectures, so there is "
                    "no plane through their weights"
                )
        self._net, self._batches, self._temperature = deepcopy(networks[self.teacher]), list(batches), temperature
        with torch.no_grad():
            self._targets = [networks[self.teacher](batch.inputs).logits for batch in self._batches]

    def vector(self, name: str) -> Tensor:
        """A network's weights and other numbers in one vector, float64."""
        return torch.cat([v.double().flatten() for v in self.states[name].values() if v.is_floating_point()])

    @torch.no_grad()
    def __call__(self, weights: Mapping[str, float]) -> tuple[float, float]:
        """Mean loss and agreement at the sum of the networks with these weights; missing ones have weight 0."""
        every = {name: weights.get(name, 0.0) for name in self.states}
        plain(self._net).load_state_dict(combined(self.states, every, like=self.teacher))
        loss, same, seen = 0.0, 0, 0
        for batch, target in zip(self._batches, self._targets, strict=True):
            logits = self._net(batch.inputs).logits
            loss += float(kl_divergence(logits, target, self._temperature, "batchmean").double().sum())
            same += int((logits.argmax(1) == target.argmax(1)).sum())
            seen += len(batch)
        return loss / seen, same / seen
