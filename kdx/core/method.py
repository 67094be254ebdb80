"""The contracts of a method and of an evaluator."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from kdx.core.batch import Batch
from kdx.core.errors import UserError
from kdx.core.metric import Metric
from kdx.core.outputs import Step, Turn
from kdx.core.schedule import Progress, Weight
from kdx.core.task import ONLY_CLASSES, Kinds, Task


class Method(nn.Module):
    """A training method: decides which networks run, on which inputs and with which gradients.

    It returns unweighted, named terms, and does not depend on the trainer or the optimiser.

    Attributes:
        tasks: Kinds of tasks that the method fits, see `kdx.core.task.Part`; None if its terms decide.
        uses_teacher: Whether the method needs a teacher.
        frozen: Names of the children that are never trained; checkpoints leave them out.
        has_peers: Whether the method trains other networks beside the student; evaluators measure them too.
        needs_turns: Whether the terms must not be summed, since parties have opposed objectives.
        divisible: Whether a step's loss is a mean over examples, so that several processes can split the batch. Terms
            have the same attribute, see `relating`.
        compilable: Whether `torch.compile` supports the student in this method; it lacks second derivatives and
            forward-mode differentiation.
        num_views: Number of views of each example that a batch must have; see `Batch.views`.
        weights: A number or a schedule for each term.
        student: The trained network that is exported.
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
        """Modules by party, in the order of the turns; each party can have its own optimiser.

        Together the parties hold every trainable parameter exactly once, and one of them is named "student". Empty if
        there is a single party.
        """
        return {}

    def turns(self, batch: Batch, progress: Progress) -> Iterator[Turn]:
        """The turns of a step: each updates the parameters of one party.

        Code after a `yield` runs after that party's update. A term may occur in several turns. Only for methods with
        parties.
        """
        raise NotImplementedError

    def counted_rows(self, batch: Batch) -> Mapping[str, Tensor]:
        """Number of rows, such as tokens, over which a term's mean runs, by term, each a scalar.

        Terms that are means over examples are left out. An update that splits a batch weights the others by rows, so
        that the sum over the parts is the mean over all rows.
        """
        return {}

    def relating(self) -> str | None:
        """Class name of a part, or of the method, that needs the whole batch at once; None if there is none."""
        parts = (m for m in self.modules() if not getattr(m, "divisible", True))
        return next((type(part).__name__ for part in parts), None)

    def training_state(self) -> dict[str, Any]:
        """The state that training changes: tensors, and extra state of modules that define some."""
        return {name: t for name, t in self.state_dict().items() if name.split(".", 1)[0] not in self.frozen}

    def load_training_state(self, state: dict[str, Any]) -> None:
        """Load a `training_state`. Raises UserError if it belongs to another method or network."""
        expected = self.training_state()
        differ = expected.keys() ^ state.keys()
        differ |= {
            name
            for name in expected.keys() & state.keys()
            if getattr(expected[name], "shape", None) != getattr(state[name], "shape", None)
        }
        if differ:
            raise UserError(
                f"the checkpoint belongs to another method or network: {len(differ)} tensors differ, "
                f"such as '{min(differ)}'"
            )
        self.load_state_dict(state, strict=False)


class Evaluator:
    """Measures networks; the config names and schedules it.

    Attributes:
        tasks: Kinds of tasks that it can measure, see `kdx.core.task.Part`; None for all.
        reads_one_tensor: Whether it changes or differentiates the inputs, which must then be one tensor.
        described: Display settings of its metrics. A name is a pattern, see `Metric`.
        every: Epochs between two evaluations; None evaluates only at the end of the run.
    """

    tasks: ClassVar[Kinds | None] = ONLY_CLASSES
    reads_one_tensor: ClassVar[bool] = False
    described: Sequence[Metric] = ()
    every: float | None

    def misfits(self, task: Task) -> Iterator[str]:
        """A sentence for each setting that does not fit the task."""
        return iter(())

    def run(self, models: Mapping[str, nn.Module]) -> dict[str, float]:
        """Measurements by full metric name, such as "test/top1"."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """State for a resumed run, of an evaluator that remembers earlier evaluations: plain values and tensors."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a `state_dict`."""
