"""The contract of a measurement, and the names of its rows."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from kdx.core.batch import Batch
from kdx.core.errors import UserError, did_you_mean
from kdx.core.metric import Metric
from kdx.core.spec import DataSpec

Scores = dict[str, dict[str, float]]  # a number by row and column


class Examples(Protocol):
    """Batches of a split, on the networks' device; each iteration reads the split from its beginning.

    Attributes:
        spec: Facts of the data set; images are normalised with its mean and std.
    """

    spec: DataSpec

    def __iter__(self) -> Iterator[Batch]: ...


@runtime_checkable
class Measurement(Protocol):
    """Compares networks on a split.

    Attributes:
        metrics: How the columns are shown; a column that is missing here is shown as a plain number.
        notes: Sentences below the table that define its columns.
    """

    @property
    def metrics(self) -> Sequence[Metric]: ...

    @property
    def notes(self) -> Sequence[str]: ...

    def __call__(self, networks: Mapping[str, nn.Module], batches: Examples) -> Mapping[str, Mapping[str, float]]:
        """Measure.

        Args:
            networks: By name, in evaluation mode, with parameters that may require gradients.
            batches: Of the split.

        Returns:
            A number for each row and column of the study's table, in the order in which the table shows them. A number
            that is undefined is left out.
        """
        ...


@runtime_checkable
class Drawn(Protocol):
    """A measurement that also draws a picture of the networks of one seed."""

    def draw(self, networks: Mapping[str, nn.Module], batches: Examples, path: Path) -> None:
        """Write the picture to a PNG file; arguments as of the measurement."""
        ...


def pair(one: str, other: str) -> str:
    """Row of an ordered pair of networks.

    Example:
        >>> pair("KD", "teacher")
        'KD / teacher'
    """
    return f"{one} / {other}"


def count(mask: Tensor) -> int:
    """Number of true values."""
    return int(mask.sum())


def must_be_there(name: str, networks: Mapping[str, nn.Module], key: str) -> None:
    """Raise UserError if a measurement names a network that does not take part."""
    if name not in networks:
        raise UserError(f"study.measure.{key}: there is no network '{name}'{did_you_mean(name, networks)}")
