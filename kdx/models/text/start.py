"""Initial weights of a student encoder, from a larger pretrained one."""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from kdx.core.errors import UserError

EMBEDDINGS = "embeddings."


def start(
    net: nn.Module,
    path: str,
    source: Mapping[str, Tensor],
    depth: int,
    layers: Sequence[int] | None,
    embeddings: Literal["copy", "svd", "random"],
) -> None:
    """Copy weights of a pretrained encoder into a student of the same architecture, in place.

    Args:
        net: The student, with random weights; a weight without a counterpart in `source` stays as it is.
        path: Path of its layers.
        source: Weights of the pretrained encoder, by name.
        depth: Number of its layers.
        layers: Its layers, from 1, that the student's layers start from; None for all, empty for none.
        embeddings: Whether to copy the embeddings, to project them to the student's width, or to leave them random.

    Raises:
        UserError: A layer does not exist, or sizes differ.
    """
    chosen = list(range(1, depth + 1)) if layers is None else list(layers)
    if wrong := [k for k in chosen if not 1 <= k <= depth]:
        raise UserError(f"layers has {wrong[0]}, and the pretrained encoder has the layers 1 to {depth}")
    mine = net.state_dict()
    given: dict[str, Tensor] = {}
    for name, weight in mine.items():
        if name.startswith(f"{path}."):
            number, _, rest = name.removeprefix(f"{path}.").partition(".")
            if not chosen:
                continue
            if int(number) >= len(chosen):
                raise UserError(f"options.num_hidden_layers differs from the {len(chosen)} layers that layers names")
            found = source.get(f"{path}.{chosen[int(number)] - 1}.{rest}")
        else:
            found = None if name.startswith(EMBEDDINGS) and embeddings != "copy" else source.get(name)
        if found is None:
            continue
        if found.shape != weight.shape:
            raise UserError(
                f"'{name}' is {list(found.shape)} in the pretrained encoder and {list(weight.shape)} in this one; a "
                "student of another size needs layers=[] and embeddings=svd or random"
            )
        given[name] = found
    if embeddings == "svd":
        given |= projected(mine, source)
    net.load_state_dict({**mine, **given})


def projected(mine: Mapping[str, Tensor], source: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tables of embeddings projected from width D to d, on the d leading right singular vectors of the words' table.

    Args:
        mine: Weights of the student; its tables are [rows, d].
        source: Weights of the pretrained encoder; its tables are [rows, D].

    Raises:
        UserError: There is no table of words, or the student is wider.
    """
    tables = {name: t for name, t in mine.items() if name.startswith(EMBEDDINGS) and t.dim() == 2 and name in source}
    words = next((name for name in tables if "word" in name), None)
    if words is None:
        raise UserError("embeddings=svd needs a table of words, and this architecture has none; choose random")
    wide, narrow = source[words].shape[1], mine[words].shape[1]
    if narrow > wide:
        raise UserError(f"embeddings=svd lowers the width, and {narrow} is more than the {wide} of the pretrained one")
    basis = right_singular_vectors(source[words], narrow)
    found = {name: (source[name].double() @ basis).float() for name in tables}
    if wrong := [name for name in tables if found[name].shape != mine[name].shape]:
        raise UserError(f"'{wrong[0]}' has another number of rows in the pretrained encoder; choose embeddings=random")
    return found


def right_singular_vectors(table: Tensor, count: int) -> Tensor:
    """The `count` leading right singular vectors of a table [N, D], float64 [D, count].

    The sign of each is chosen so that its largest entry is positive.

    Example:
        >>> right_singular_vectors(torch.tensor([[0.0, 2.0], [1.0, 0.0]]), 1)
        tensor([[0.],
                [1.]], dtype=torch.float64)
    """
    whole = table.double()
    _, vectors = torch.linalg.eigh(whole.T @ whole)
    leading = vectors.flip(1)[:, :count]
    largest = leading.gather(0, leading.abs().argmax(0, keepdim=True))
    return leading * largest.sign() + 0.0
