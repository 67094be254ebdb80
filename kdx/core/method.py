"""The contracts of a method and of an evaluator."""

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

from torch import Tensor, nn

from kdx.core.batch import Batch
from kdx.core.errors import UserError
from kdx.core.metric import Metric
from kdx.core.outputs import Step, Turn
from kdx.core.schedule import Progress, Weight
from kdx.core.task import ONLY_CLASSES, Kinds, Task


class Method(nn.Module):
    """A learning scene: which networks run, on which inputs, in which gradient mode.

    It returns unweighted, named terms and knows neither the trainer nor the optimiser.

    Attributes:
        tasks: Kinds of tasks that the method itself fits, see `kdx.core.task.Part`; None where its terms decide.
        uses_teacher: Whether a teacher is loaded for this method at all.
        frozen: Names of the children that are given and never trained; checkpoints leave them out.
        has_peers: Whether networks learn beside the student, which are measured as well.
        needs_turns: Whether the terms make no sense as one sum, since parties work against each other.
        divisible: Whether a step is made of examples alone, so that several processes may each take a part of the
            batch. Its terms have their own say, see `relating`.
        compilable: Whether the student may go through `torch.compile`, which has neither second derivatives nor a
            forward mode.
        num_views: How many views of each example a batch must have; see `Batch.views`.
        weights: A number or a schedule for each term.
        student: The deliverable, exported alone.
    """

    tasks: ClassVar[Kinds | None] = ONLY_CLASSES
    uses_teacher: ClassVar[bool] = True
    frozen: ClassVar[tuple[str, ...]] = ("teacher",)
    has_peers: ClassVar[bool] = False
    needs_turns: ClassVar[bool] = False
    divisible: ClassVar[bool] = True
    compilable: ClassVar[bool] = True
    num_views: int = 1
    weights: Mapping[str, Weight]
    student: nn.Module

    def models(self) -> Mapping[str, nn.Module]:
        """Networks by role, for evaluators: student, teacher, peer1, ..."""
        raise NotImplementedError

    def forward(self, batch: Batch, progress: Progress) -> Step:
        raise NotImplementedError

    def parties(self) -> Mapping[str, Sequence[nn.Module]]:
        """Modules by who owns them, in the order of the turns; each party can have an optimiser of its own.

        Together they hold every trainable parameter once, and one of them is called "student". Empty where all
        parameters are one party's.
        """
        return {}

    def turns(self, batch: Batch, progress: Progress) -> Iterator[Turn]:
        """The parts of a step that are taken one after the other, each by one party.

        What follows a `yield` runs after that party's parameters have moved. The same term may occur in several
        turns. Only for methods with parties.
        """
        raise NotImplementedError

    def relating(self) -> str | None:
        """The name of a part, or of the method, that needs the whole batch at once; None where there is none."""
        parts = (m for m in self.modules() if not getattr(m, "divisible", True))
        return next((type(part).__name__ for part in parts), None)

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
        tasks: Kinds of tasks that it can measure, see `kdx.core.task.Part`; None for all.
        described: How its metrics are shown. A name is a pattern, see `Metric`.
        every: Epochs between two evaluations; None for the end of the run alone.
    """

    tasks: ClassVar[Kinds | None] = ONLY_CLASSES
    described: Sequence[Metric] = ()
    every: float | None

    def misfits(self, task: Task) -> Iterator[str]:
        """A sentence for everything about it that does not fit networks for such a task."""
        return iter(())

    def run(self, models: Mapping[str, nn.Module]) -> dict[str, float]:
        """Measurements by full metric name, such as "test/top1"."""
        raise NotImplementedError
