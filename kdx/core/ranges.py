"""Number types with their range, against which a config is checked."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal


@dataclass(frozen=True)
class Bound:
    """A limit on a number, for annotations: `Annotated[float, Gt(0)]`. `kdx.config.validate` applies it.

    Attributes:
        kind: The number is greater than the limit, at least it, less, or at most it.
        limit: The limit.
    """

    kind: Literal["gt", "ge", "lt", "le"]
    limit: float

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        """The schema of the number with this limit; pydantic calls it."""
        return {**handler(source), self.kind: self.limit}


Gt, Ge, Lt, Le = (partial(Bound, kind) for kind in ("gt", "ge", "lt", "le"))

Positive = Annotated[float, Gt(0)]
NonNegative = Annotated[float, Ge(0)]
Probability = Annotated[float, Ge(0), Le(1)]
Fraction = Annotated[float, Gt(0), Le(1)]
OpenFraction = Annotated[float, Gt(0), Lt(1)]
PartialFraction = Annotated[float, Ge(0), Lt(1)]
PositiveInt = Annotated[int, Gt(0), Lt(2**63)]
Count = Annotated[int, Ge(0), Lt(2**63)]
