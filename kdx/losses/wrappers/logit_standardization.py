"""Logit standardisation, around any term on logits."""

from dataclasses import replace

from torch import Tensor

from kdx.core.batch import Batch
from kdx.core.functional import centred
from kdx.core.outputs import Outputs, Shapes
from kdx.core.schedule import Progress
from kdx.core.spec import DataSpec
from kdx.losses.base.numerics import full_precision
from kdx.losses.base.wrapper import Wrapper


@full_precision
def standardize(logits: Tensor) -> Tensor:
    """Logits with mean 0 and (unbiased) standard deviation 1 in each sample; constant logits become 0.

    The student then need not match the teacher's scale, only its relations between classes.

    Args:
        logits: [B, C], C at least 3; two standardised logits keep nothing but their order.

    Returns:
        [B, C].

    References:
        Sun, Ren, Li, Wang, Cao, "Logit Standardization in Knowledge Distillation", 2024.
        https://arxiv.org/abs/2403.01427

    Example:
        The result does not depend on a positive scale or an offset of the logits.

        >>> z = torch.randn(2, 5)
        >>> torch.allclose(standardize(3 * z + 1), standardize(z), atol=1e-5)
        True
    """
    moved = centred(logits, 1)
    return moved / (moved.norm(dim=1, keepdim=True) / (logits.shape[1] - 1) ** 0.5 + 1e-7)


class LogitStandardization(Wrapper):
    """Another term on standardised logits of both networks.

    Args:
        term: The inner term, such as KD or DKD; its temperature becomes the base temperature.
    """

    reads_logits = True

    def build(self, student: Shapes, teacher: Shapes | None, spec: DataSpec) -> None:
        if spec.num_classes < 3:
            raise ValueError(
                "two standardised logits are 0.71 and -0.71 for any network, so standardisation needs at least 3 "
                f"classes; this data set has {spec.num_classes}"
            )
        super().build(student, teacher, spec)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch, progress: Progress) -> Tensor:
        mine, theirs = (replace(outputs, logits=standardize(outputs.logits)) for outputs in (student, teacher))
        return self.term(mine, theirs, batch, progress)
