"""Points between networks of one architecture, in the space of their weights."""

from collections.abc import Mapping

from torch import Tensor


def between(start: Mapping[str, Tensor], end: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """The state `(1 - share) start + share end`, name by name; integers, such as counters, are those of the end.

    Args:
        start: State dict.
        end: State dict with the same names and shapes.
        share: Position on the line, 0 at the start and 1 at the end.

    References:
        Stanton, Izmailov, Kirichenko, Alemi, Wilson, "Does Knowledge Distillation Really Work?", 2021, section 6.2
        (students that start between a random point and their teacher). https://arxiv.org/abs/2106.05945

    Example:
        >>> between({"w": torch.tensor([0.0])}, {"w": torch.tensor([4.0])}, 0.25)
        {'w': tensor([1.])}
    """
    return combined({"start": start, "end": end}, {"start": 1 - share, "end": share}, like="end")


def combined(states: Mapping[str, Mapping[str, Tensor]], weights: Mapping[str, float], like: str) -> dict[str, Tensor]:
    """The weighted sum of state dicts.

    Args:
        states: State dicts with the same names and shapes, by name.
        weights: Weight of each, by name.
        like: The state dict that integers are taken from.
    """
    total: dict[str, Tensor] = {}
    for name, given in states[like].items():
        if given.is_floating_point():
            parts = [weights[key] * state[name] for key, state in states.items() if weights[key]]
            total[name] = sum(parts[1:], parts[0]) if parts else given * 0
        else:
            total[name] = given
    return total
