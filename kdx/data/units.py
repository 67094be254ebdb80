"""Units of inputs and targets: means and standard deviations of a config, checked before anything loads."""

from collections.abc import Sequence

from kdx.data.sets import DataError
from kdx.tasks.values import Values


def standardised_values(num_outputs: int, mean: Sequence[float], std: Sequence[float]) -> Values:
    """The task of targets of `num_outputs` values, each minus its mean and divided by its standard deviation.

    Raises:
        DataError: There is not one mean and one positive standard deviation per value.
    """
    if not len(mean) == len(std) == num_outputs or min(std) <= 0:
        raise DataError(
            f"target_mean and target_std need one number for each of num_outputs={num_outputs}, and a positive std; "
            f"got target_mean {list(mean)}, target_std {list(std)}"
        )
    return Values(tuple(mean), tuple(std))


def check_units(mean: Sequence[float], std: Sequence[float], keys: str) -> None:
    """Raise DataError for statistics of pixels from 0 to 255, which would turn every image into noise near zero.

    Args:
        mean: Mean of each channel.
        std: Standard deviation of each channel.
        keys: Their keys, for the message.
    """
    if max(mean) > 1 or max(std) > 2:  # a std of 1 leaves the scale as it is
        right = " and ".join(f"[{','.join(f'{v / 255:.4f}' for v in values)}]" for values in (mean, std))
        raise DataError(f"{keys} are in units where white is 1, got {[*mean]} and {[*std]}; divided by 255: {right}")
