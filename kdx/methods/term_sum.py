"""What methods that sum terms share: names, construction, values and the logged temperature."""

from collections.abc import Collection, Iterable, Mapping

import torch
from torch import Tensor, nn

from kdx.core.batch import Batch
from kdx.core.errors import UserError
from kdx.core.method import Method
from kdx.core.outputs import Outputs, Shapes
from kdx.core.schedule import Progress, Schedule, Weight, at
from kdx.core.spec import DataSpec
from kdx.losses.base.term import Term


def check_names(terms: Iterable[str], weights: Iterable[str]) -> None:
    """Raise UserError unless terms and weights have the same names."""
    stray = set(terms) ^ set(weights)
    if stray:
        raise UserError(f"terms and weights must have the same names; on one side only: {', '.join(sorted(stray))}")


def temperature_report(temperature: float | Schedule | None, progress: Progress) -> dict[str, Tensor]:
    """The temperature at this point of the run, as "temperature", if it is a schedule."""
    return {"temperature": torch.tensor(at(temperature, progress))} if isinstance(temperature, Schedule) else {}


class TermSum(Method):
    """A method whose loss is a weighted sum of terms.

    Args:
        student: A network that returns `Outputs`.
        terms: Terms by name.
        weights: A number or a schedule for each term, under the same names.
        temperature: The temperature that the terms share by interpolation, logged if it is a schedule; None for
            methods without one.

    Raises:
        UserError: Terms and weights have different names.
    """

    def __init__(
        self,
        student: nn.Module,
        terms: Mapping[str, Term],
        weights: Mapping[str, Weight],
        temperature: float | Schedule | None,
    ):
        super().__init__()
        check_names(terms, weights)
        self.student = student
        self.terms = nn.ModuleDict(terms)
        self.weights = dict(weights)
        self.temperature = temperature

    def build_terms(self, teacher: nn.Module | None, shapes: tuple[Shapes, Shapes | None], spec: DataSpec) -> None:
        """Attach and build all terms.

        Args:
            teacher: The teacher; None for methods without one.
            shapes: Shapes of the student's outputs and of the teacher's.
            spec: Facts of the training data.

        Raises:
            UserError: A term does not work with these networks or this data set.
        """
        whom = "this student" if teacher is None else "this pair"
        for name, term in self.terms.items():
            assert isinstance(term, Term)
            try:
                term.attach(self.student, teacher)
                term.build(*shapes, spec)
            except ValueError as error:
                raise UserError(f"the term '{name}' cannot be built for {whom}: {error}") from error

    def values(
        self,
        student: Outputs,
        teacher: Outputs,
        batch: Batch,
        progress: Progress,
        names: Collection[str] | None = None,
    ) -> dict[str, Tensor]:
        """Means over the batch, by name, of the terms called `names`; of all where it is None. Autocast is off."""
        with torch.autocast(batch.device.type, enabled=False):
            return {
                name: term(student, teacher, batch, progress).mean()
                for name, term in self.terms.items()
                if names is None or name in names
            }
