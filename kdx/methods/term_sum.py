"""Base class of methods that sum terms: names, construction, values and the logged temperatures."""

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
    if taken := [name for name in terms if hasattr(nn.ModuleDict, name)]:
        raise UserError(f"a term cannot be called '{taken[0]}'; torch reserves that name, choose another")


def temperatures_in_use(
    shared: float | Schedule | None, parts: Mapping[str, nn.Module] | None = None
) -> dict[str, Schedule]:
    """The temperature schedules to log, by name of the metric.

    Args:
        shared: The method's temperature, as "temperature"; left out if it is constant, or if every temperature of the
            parts differs from it.
        parts: Terms by name; each schedule of a part that differs from the shared one is "temperature/PART". Learned
            temperatures are left out.

    Example:
        >>> temperatures_in_use(4.0)
        {}
    """
    found = [
        (name, module.temperature)
        for name, part in (parts or {}).items()
        for module in part.modules()
        if isinstance(getattr(module, "temperature", None), int | float | Schedule)
    ]
    own = [(name, temperature) for name, temperature in found if not _equal(temperature, shared)]
    named = {"temperature": shared} if not found or len(own) < len(found) else {}
    named |= {f"temperature/{name}": temperature for name, temperature in own}
    return {name: t for name, t in named.items() if isinstance(t, Schedule) and not isinstance(t, nn.Module)}


def _equal(a: object, b: object) -> bool:
    """Whether two temperatures are equal; interpolation in a config builds equal copies of a schedule."""
    if isinstance(a, Schedule) and isinstance(b, Schedule):
        return a is b or (type(a) is type(b) and not isinstance(a, nn.Module) and vars(a) == vars(b))
    return a == b


def temperature_report(temperatures: Mapping[str, Schedule], progress: Progress) -> dict[str, Tensor]:
    """The values of schedules at this point of the run, see `temperatures_in_use`."""
    return {name: torch.tensor(at(schedule, progress)) for name, schedule in temperatures.items()}


class TermSum(Method):
    """A method whose loss is a weighted sum of terms.

    Args:
        student: A network that returns `Outputs`.
        terms: Terms by name.
        weights: A number or a schedule for each term, under the same names.
        temperature: The temperature that the terms share by interpolation; None for methods without one. Schedules
            that terms use are logged, see `temperatures_in_use`.

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
        self.temperatures = temperatures_in_use(temperature, terms)

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

    def counted_rows(self, batch: Batch) -> Mapping[str, Tensor]:
        terms = {name: term for name, term in self.terms.items() if isinstance(term, Term)}
        counts = {name: term.counted_rows(batch) for name, term in terms.items()}
        return {name: count for name, count in counts.items() if count is not None}

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
