"""Features of which some are computed from others when they are first read."""

from collections.abc import Callable, Iterator, Mapping

from torch import Tensor

Rule = Callable[[Mapping[str, Tensor]], Tensor]


class Derived(Mapping[str, Tensor]):
    """Features by role; a role with a rule is computed when it is first read, and then kept.

    Attention scores [B, heads, L, L] are such a feature: few methods read them, and they are larger than the queries
    and keys that they come from.

    Args:
        stored: Features by role.
        rules: For each further role, a function of the stored features.

    Example:
        >>> import torch
        >>> features = Derived({"query": torch.ones(2)}, {"double": lambda f: 2 * f["query"]})
        >>> list(features), features["double"]
        (['query', 'double'], tensor([2., 2.]))
    """

    def __init__(self, stored: Mapping[str, Tensor], rules: Mapping[str, Rule]):
        self.stored, self.rules, self._read = dict(stored), dict(rules), dict[str, Tensor]()

    def map(self, change: Callable[[Tensor], Tensor]) -> "Derived":
        """A copy with each stored feature changed; the rules apply to the changed features."""
        return Derived({role: change(feature) for role, feature in self.stored.items()}, self.rules)

    def __getitem__(self, role: str) -> Tensor:
        if role in self.stored:
            return self.stored[role]
        if role not in self._read:
            self._read[role] = self.rules[role](self.stored)
        return self._read[role]

    def __iter__(self) -> Iterator[str]:
        yield from self.stored
        yield from self.rules

    def __len__(self) -> int:
        return len(self.stored) + len(self.rules)


def stored(features: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The features that are there, without those that would be computed.

    Example:
        >>> import torch
        >>> list(stored(Derived({"a": torch.ones(1)}, {"b": lambda f: f["a"]})))
        ['a']
    """
    return features.stored if isinstance(features, Derived) else features
