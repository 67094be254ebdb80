"""Terms on the tokens of texts: which tokens count, means over tokens, and which layers are compared."""

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor

from kdx.core.batch import Batch
from kdx.core.outputs import Outputs, Shapes
from kdx.core.ranges import PositiveInt
from kdx.core.spec import DataSpec
from kdx.losses.base.checks import require_teacher
from kdx.losses.base.pairs import promoted
from kdx.losses.base.term import Term

Average = Literal["example", "all"]
AVERAGES = ("example", "all")


def token_mean(values: Tensor, mask: Tensor, average: Average) -> Tensor:
    """Values of tokens as a value per example.

    Args:
        values: [B, L]; those outside the mask may be anything, NaN included.
        mask: Tokens that count, bool [B, L].
        average: 'example' is the mean over an example's tokens. 'all' scales the sums over them so that their mean over
            the batch is the mean over all tokens.

    Returns:
        [B].

    Example:
        >>> values, mask = torch.tensor([[1.0, 3.0], [8.0, 0.0]]), torch.tensor([[True, True], [True, False]])
        >>> token_mean(values, mask, "example"), token_mean(values, mask, "all")
        (tensor([2., 8.]), tensor([2.6667, 5.3333]))
    """
    sums, counts = torch.where(mask, values, 0.0).sum(1), mask.to(values.dtype).sum(1)
    if average == "all":
        return sums * (len(values) / counts.sum().clamp(min=1))
    return sums / counts.clamp(min=1)


def layer_map(layers: Sequence[int] | None, student: int, teacher: int, term: str) -> list[int]:
    """The teacher's layer for each of the student's M layers, both counted from 1.

    Args:
        layers: The teacher's layers, one for each of the student's, ascending; None for every N / M-th.
        student: M.
        teacher: N.
        term: Name of the term, for the message.

    Raises:
        ValueError: The layers do not fit the networks.

    Example:
        >>> layer_map(None, 4, 12, "TinyBERT"), layer_map([1, 12], 2, 12, "TinyBERT")
        ([3, 6, 9, 12], [1, 12])
    """
    if layers is None:
        if teacher % student:
            raise ValueError(
                f"{term} pairs each of the student's {student} layers with every N / {student}-th of the teacher's "
                f"{teacher}, which is no whole number; set layers to {student} of the teacher's layers, such as "
                f"{[round((i + 1) * teacher / student) for i in range(student)]}"
            )
        return [(i + 1) * teacher // student for i in range(student)]
    found = list(layers)
    if len(found) != student or found != sorted(set(found)) or not 1 <= found[0] <= found[-1] <= teacher:
        raise ValueError(
            f"{term} needs one of the teacher's layers 1 to {teacher} for each of the student's {student} layers, in "
            f"ascending order, got layers={found}"
        )
    return found


def num_layers(kind: str, shapes: Shapes, whose: str, term: str) -> int:
    """Number of layers of which a network gives a kind of feature, as `hidden.1`, `hidden.2`.

    Raises:
        ValueError: There is none.

    Example:
        >>> num_layers("hidden", Shapes((2,), {"hidden.1": (8, 4), "hidden.2": (8, 4)}), "student", "TinyBERT")
        2
    """
    numbers = [role.removeprefix(f"{kind}.") for role in shapes.features if role.startswith(f"{kind}.")]
    found = [int(number) for number in numbers if number.isdigit()]
    if not found:
        raise ValueError(
            f"{term} reads the {whose}'s features {kind}.1, {kind}.2, ... of an encoder's layers; the {whose} has: "
            f"{', '.join(shapes.features) or 'none'}"
        )
    return max(found)


def layer_role(kind: str, layer: int | None, shapes: Shapes, whose: str, term: str) -> str:
    """The role of one layer's feature, counted from 1; None for the last layer.

    Raises:
        ValueError: The network has no such layer.

    Example:
        >>> layer_role("query", None, Shapes((2,), {"query.1": (4, 8, 16), "query.2": (4, 8, 16)}), "teacher", "MiniLM")
        'query.2'
    """
    last = num_layers(kind, shapes, whose, term)
    if layer is not None and not 1 <= layer <= last:
        raise ValueError(f"{term} reads layer {layer} of the {whose}, which has the layers 1 to {last}")
    return f"{kind}.{last if layer is None else layer}"


def require_texts(spec: DataSpec, term: str) -> None:
    """Refuse a data set whose inputs are no texts.

    Raises:
        ValueError: The inputs have no mask of tokens.

    Example:
        >>> from kdx.tasks.classes import image_classes
        >>> require_texts(image_classes(10, (1, 8, 8), 2, (0.0,), (1.0,)), "PKD")
        Traceback (most recent call last):
        ValueError: PKD compares the tokens of texts, and the inputs of this data set are images
    """
    made_up = Batch(spec.inputs.fake(1, "cpu"), {}, torch.zeros(1, dtype=torch.int64))
    if made_up.token_mask is None:
        kind = type(spec.inputs).__name__.lower()
        raise ValueError(f"{term} compares the tokens of texts, and the inputs of this data set are {kind}")


def require_equal(student: int, teacher: int, what: str, term: str, instead: str) -> None:
    """Refuse networks that differ in a number.

    Args:
        student: The student's number.
        teacher: The teacher's number.
        what: The meaning of the number, such as "attention heads".
        term: Name of the term, for the message.
        instead: What works instead.

    Raises:
        ValueError: The numbers differ.

    Example:
        >>> require_equal(4, 12, "attention heads", "TinyBERT", "choose method=minilm_v2")
        Traceback (most recent call last):
        ValueError: TinyBERT needs equal attention heads, and the student has 4, the teacher 12; choose method=minilm_v2
    """
    if student != teacher:
        raise ValueError(f"{term} needs equal {what}, and the student has {student}, the teacher {teacher}; {instead}")


class OnTexts(Term):
    """Base class of terms on features of texts.

    Attributes:
        called: Name of the method, for messages.
    """

    reads_logits = False
    tasks = None
    called: ClassVar[str]

    def checked(self, teacher: Shapes | None, spec: DataSpec) -> Shapes:
        """The teacher's shapes. Raises ValueError without a teacher, or where the inputs are no texts."""
        found = require_teacher(teacher, self.called)
        require_texts(spec, self.called)
        return found


class OnTokens(OnTexts):
    """Base class of terms with a value per token.

    Args:
        average: As in `token_mean`.
    """

    def __init__(self, average: Average):
        super().__init__()
        if average not in AVERAGES:
            raise ValueError(f"average must be 'example' or 'all', got {average!r}")
        self.average: Average = average

    def counted_rows(self, batch: Batch) -> Tensor | None:
        return tokens_of(batch).sum() if self.average == "all" else None

    def averaged(self, values: Tensor, batch: Batch) -> Tensor:
        """The values [B, L] of tokens as a value per example, [B], see `token_mean`."""
        return token_mean(values, tokens_of(batch), self.average)


class OfLayer(OnTokens):
    """A term on one kind of feature of one layer of each network.

    Args:
        student_layer: The student's layer, from 1; None for its last.
        teacher_layer: The teacher's; None likewise.
        average: As in `token_mean`.

    Attributes:
        kind: Kind of the feature, such as "value".
    """

    kind: str

    def __init__(self, student_layer: PositiveInt | None, teacher_layer: PositiveInt | None, average: Average):
        super().__init__(average)
        self.student_layer, self.teacher_layer = student_layer, teacher_layer
        self._roles: tuple[tuple[str, ...], tuple[str, ...]] = (), ()

    def student_roles(self) -> tuple[str, ...]:
        return self._roles[0]

    def teacher_roles(self) -> tuple[str, ...]:
        return self._roles[1]

    def settle(self, student: Shapes, teacher: Shapes | None, spec: DataSpec) -> tuple[tuple[int, ...], ...]:
        """Find the roles; returns the shapes of the student's feature and of the teacher's."""
        teacher = self.checked(teacher, spec)
        mine = layer_role(self.kind, self.student_layer, student, "student", self.called)
        theirs = layer_role(self.kind, self.teacher_layer, teacher, "teacher", self.called)
        self._roles = (mine,), (theirs,)
        return student.feature(mine, "student"), teacher.feature(theirs, "teacher")

    def features(self, student: Outputs, teacher: Outputs) -> tuple[Tensor, Tensor]:
        """The two features."""
        (mine,), (theirs,) = self._roles
        return promoted(student.feature(mine)), promoted(teacher.feature(theirs)).detach()


def tokens_of(batch: Batch) -> Tensor:
    """The mask of a batch's tokens, bool [B, L].

    Example:
        >>> tokens_of(Batch({"attention_mask": torch.tensor([[1, 0]])}, {}, torch.arange(1)))
        tensor([[ True, False]])
    """
    found = batch.token_mask
    assert found is not None  # see `require_texts`
    return found
