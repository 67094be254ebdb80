"""The contract of losses between networks that learn at the same time."""

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from kdx.core.batch import Batch
from kdx.core.functional import divergence
from kdx.core.outputs import Outputs, Shapes
from kdx.core.schedule import Progress
from kdx.core.spec import DataSpec
from kdx.losses.base.checks import require_rows
from kdx.losses.base.numerics import full_precision, soft_log_probs


class PeerTerm(nn.Module):
    """Losses of K networks that learn from each other's outputs; member 0 is the student.

    Like a `Term`, it does not know weights and optimisers. Parameters and memories are created in `build`, before the
    optimiser exists.

    Attributes:
        names: Names of its terms.
        combines: Whether it combines the members to one network (`ensemble`).
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
        """Create the parameters that depend on shapes.

        Args:
            members: Shapes of the members' outputs.
            shared: The last stage that all members share; None where each is a network of its own.
            spec: Facts of the training data.

        Raises:
            ValueError: The members do not work together.
        """

    def forward(
        self, members: Sequence[Outputs], learners: Sequence[int], batch: Batch, progress: Progress
    ) -> dict[str, Tensor]:
        """The terms by name, each a value per example [B], summed over the learners.

        Args:
            members: Outputs of all members, in full precision.
            learners: Positions of the members that learn in this turn; all in a joint step.
            batch: The batch of the outputs.
            progress: Progress of the run.
        """
        raise NotImplementedError

    def ensemble(self, members: Sequence[Outputs]) -> Tensor:
        """Logits [B, C] of the combined members, if `combines`."""
        raise NotImplementedError


@full_precision
def taught_divergence(student_logits: Tensor, target_logits: Tensor, temperature: float) -> Tensor:
    """`T^2 KL(p || q)` of a network q from its target p, softened logits, both with gradients.

    Args:
        student_logits: [B, C].
        target_logits: [B, C]; the caller detaches a constant target.
        temperature: T, above 0.

    Returns:
        [B], in nats.

    Example:
        >>> z, v = torch.randn(2, 5), torch.randn(2, 5, requires_grad=True)
        >>> taught_divergence(z, v, 4.0).requires_grad
        True
    """
    log_p, log_q = soft_log_probs(target_logits, temperature), soft_log_probs(student_logits, temperature)
    return divergence(log_p, log_q) * temperature**2
