"""The contract of what several networks that learn at the same time learn from each other."""

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from kdx.core.functional import divergence
from kdx.core.schedule import Progress
from kdx.core.types import Batch, DataSpec, Outputs, Shapes
from kdx.losses.base.checks import require_rows
from kdx.losses.base.numerics import full_precision, soft_log_probs


class Exchange(nn.Module):
    """What each of K networks learns from the others' outputs; member 0 is the student.

    It knows nothing of weights and optimisers. Parameters and memories are made in `build`, before the
    optimiser exists.

    Attributes:
        names: Names of its terms.
        combines: Whether it says what the members are together (`ensemble`).
        divisible: As in `Term`.
    """

    names: ClassVar[tuple[str, ...]] = ("mutual",)
    combines: ClassVar[bool] = False
    divisible: bool = True

    def __call__(
        self, members: Sequence[Outputs], learners: Sequence[int], batch: Batch, progress: Progress
    ) -> dict[str, Tensor]:
        """Check the rank of the logits, then call `forward`. Raises ValueError where logits are not [B, C]."""
        for i, member in enumerate(members):
            require_rows(member.logits, f"peer{i}" if i else "student", type(self).__name__)
        return super().__call__(members, learners, batch, progress)

    def build(self, members: Sequence[Shapes], shared: str | None, spec: DataSpec) -> None:
        """Make what depends on shapes. Raises ValueError, in a sentence, for members that cannot work.

        Args:
            members: What the members put out.
            shared: The last stage that all members have in common; None where each is a network of its own.
            spec: Facts of the training data.
        """

    def forward(
        self, members: Sequence[Outputs], learners: Sequence[int], batch: Batch, progress: Progress
    ) -> dict[str, Tensor]:
        """The terms by name, each a value per example [B], summed over the learners.

        Args:
            members: Outputs of all members, in full precision.
            learners: Which of them learn in this turn; all in a joint step.
            batch, progress: What the outputs are of.
        """
        raise NotImplementedError

    def ensemble(self, members: Sequence[Outputs]) -> Tensor:
        """Logits [B, C] of the members together, where `combines` says so."""
        raise NotImplementedError


@full_precision
def taught_divergence(student_logits: Tensor, target_logits: Tensor, temperature: float) -> Tensor:
    """`T^2 KL(p || q)` of q from p, softened logits of a network and of its target, both of which get gradients.

    Args:
        student_logits: [B, C].
        target_logits: [B, C]; detached by the caller where it is to be constant.
        temperature: T, above 0.

    Returns:
        [B], in nats.
    """
    log_p, log_q = soft_log_probs(target_logits, temperature), soft_log_probs(student_logits, temperature)
    return divergence(log_p, log_q) * temperature**2
