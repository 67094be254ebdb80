"""The contracts of a method and of an evaluator."""

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn

from kdx.core.errors import UserError
from kdx.core.schedule import Progress, Scalar
from kdx.core.types import Batch, Step


class Method(nn.Module):
    """A learning scene: which networks run, on which inputs, in which gradient mode.

    It returns unweighted, named terms and knows neither the trainer nor the optimiser.

    Attributes:
        uses_teacher: Whether a teacher is loaded for this method at all.
        frozen: Names of the children that are given and never trained; checkpoints leave them out.
        weights: A number or a schedule for each term.
        student: The deliverable, exported alone.
    """

    uses_teacher: ClassVar[bool] = True
    frozen: ClassVar[tuple[str, ...]] = ("teacher",)
    weights: Mapping[str, Scalar]
    student: nn.Module

    def models(self) -> Mapping[str, nn.Module]:
        """Networks by role, for evaluators: student, teacher, peer1, ..."""
        raise NotImplementedError

    def forward(self, batch: Batch, progress: Progress) -> Step:
        raise NotImplementedError

    def training_state(self) -> dict[str, Tensor]:
        """The state of everything that training changes."""
        return {name: t for name, t in self.state_dict().items() if name.split(".", 1)[0] not in self.frozen}

    def load_training_state(self, state: dict[str, Tensor]) -> None:
        """Put back a `training_state`. Raises UserError where it belongs to another method or network."""
        expected = self.training_state()
        differ = expected.keys() ^ state.keys()
        differ |= {name for name in expected.keys() & state.keys() if expected[name].shape != state[name].shape}
        if differ:
            raise UserError(
                f"the checkpoint belongs to another method or network: {len(differ)} tensors differ, "
                f"such as '{min(differ)}'"
            )
        self.load_state_dict(state, strict=False)


class Evaluator:
    """Measures networks; named and scheduled by the config.

    Attributes:
        every: Epochs between two evaluations; None for the end of the run alone.
    """

    every: float | None

    def run(self, models: Mapping[str, nn.Module]) -> dict[str, float]:
        """Measurements by full metric name, such as "test/top1"."""
        raise NotImplementedError
