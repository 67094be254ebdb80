"""The weighted sum of a step's terms."""

from collections.abc import Mapping

from torch import Tensor

from kdx.core.schedule import Progress, Weight, at


def weigh(terms: Mapping[str, Tensor], weights: Mapping[str, Weight], progress: Progress) -> Tensor:
    """Sum of weight times term.

    Args:
        terms: Scalars by name.
        weights: A number or a schedule for each of the same names.
        progress: Where the run stands.

    Returns:
        A scalar with the terms' graph.

    Raises:
        KeyError: The names differ: a term without a weight, or a weight without a term.

    Example:
        >>> terms, weights = {"ce": torch.tensor(2.0), "kd": torch.tensor(3.0)}, {"ce": 1.0, "kd": 0.5}
        >>> weigh(terms, weights, Progress(step=0, steps=1, epochs=1))
        tensor(3.5000)
    """
    stray = terms.keys() ^ weights.keys()
    if stray:
        raise KeyError(f"terms and weights must have the same names; only on one side: {', '.join(sorted(stray))}")
    total = sum(at(weights[name], progress) * term for name, term in terms.items())
    assert isinstance(total, Tensor)
    return total
