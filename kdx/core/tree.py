"""Nests of tensors: what a network reads and what a task compares it with."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeAlias

from torch import Tensor

Tree: TypeAlias = "Tensor | Sequence[Tree] | Mapping[str, Tree]"


def map_tree(change: Callable[[Tensor], Tensor], tree: Tree) -> Tree:
    """The same nest with each tensor changed.

    Example:
        >>> import torch
        >>> map_tree(lambda t: t + 1, {"a": torch.zeros(2), "b": [torch.ones(1)]})
        {'a': tensor([1., 1.]), 'b': [tensor([2.])]}
    """
    if isinstance(tree, Tensor):
        return change(tree)
    if isinstance(tree, Mapping):
        return {name: map_tree(change, part) for name, part in tree.items()}
    parts = [map_tree(change, part) for part in tree]
    return tuple(parts) if isinstance(tree, tuple) else parts


def leaves(tree: Tree) -> Iterator[Tensor]:
    """The tensors of a nest, in order.

    Example:
        >>> import torch
        >>> [len(t) for t in leaves([torch.zeros(2), {"a": torch.zeros(3)}])]
        [2, 3]
    """
    if isinstance(tree, Tensor):
        yield tree
        return
    for part in tree.values() if isinstance(tree, Mapping) else tree:
        yield from leaves(part)


def take(tree: Tree, rows: Tensor | slice) -> Tree:
    """Some examples of a nest whose tensors are all [B, ...].

    Args:
        tree: The nest.
        rows: Positions int64 [b], a mask bool [B], or a slice.

    Example:
        >>> import torch
        >>> take({"a": torch.arange(4)}, torch.tensor([3, 0]))
        {'a': tensor([3, 0])}
    """
    return map_tree(lambda t: t[rows], tree)


def split(tree: Tree, parts: int) -> list[Tree]:
    """Consecutive parts of nearly equal size, as `torch.tensor_split` cuts each tensor.

    Example:
        >>> import torch
        >>> [part["a"].tolist() for part in split({"a": torch.arange(3)}, 2)]
        [[0, 1], [2]]
    """
    if isinstance(tree, Tensor):
        return list(tree.tensor_split(parts))
    if isinstance(tree, Mapping):
        cut = {name: split(part, parts) for name, part in tree.items()}
        return [{name: of[i] for name, of in cut.items()} for i in range(parts)]
    cuts = [split(part, parts) for part in tree]
    nests = [[of[i] for of in cuts] for i in range(parts)]
    return [tuple(nest) for nest in nests] if isinstance(tree, tuple) else list(nests)
