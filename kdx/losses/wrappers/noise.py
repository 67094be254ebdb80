"""Noise on the teacher's or the student's logits, around any term on logits."""

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from kdx.core.batch import Batch
from kdx.core.outputs import Outputs, Shapes
from kdx.core.ranges import NonNegative, Probability
from kdx.core.schedule import Progress, Schedule, at
from kdx.core.spec import DataSpec
from kdx.losses.base.term import Term
from kdx.losses.base.wrapper import Wrapper

Network = Literal["teacher", "student"]
Mode = Literal["multiplicative", "additive"]
Granularity = Literal["logit", "sample"]
Select = Literal["sample", "batch"]


def perturbed(
    logits: Tensor, mode: Mode, granularity: Granularity, select: Select, fraction: float, sigma: float
) -> Tensor:
    """Logits with Gaussian noise on a share of the samples.

    A selected sample becomes `(1 + xi) v` or `v + xi` with `xi ~ N(0, sigma^2)`; the others are unchanged. The mean is
    v, and the variance of each logit `fraction * sigma^2 * v^2` or `fraction * sigma^2`. The draws come from the global
    stream of the logits' device; without noise, nothing is drawn.

    Args:
        logits: [B, C].
        mode: 'multiplicative' noise grows with the logit, 'additive' noise does not.
        granularity: One draw per 'logit', or one per 'sample' for all its logits.
        select: Select each 'sample' independently, or the whole 'batch' at once.
        fraction: Probability of being selected.
        sigma: Standard deviation of the noise.

    Returns:
        [B, C].

    References:
        Sau, Balasubramanian, "Deep Model Compression: Distilling Knowledge from Noisy Teachers", 2016.
        https://arxiv.org/abs/1610.09650

    Example:
        One additive draw for all logits of a sample does not change its softmax.

        >>> z = torch.randn(2, 5)
        >>> noisy = perturbed(z, "additive", "sample", "sample", 1.0, 3.0)
        >>> torch.allclose(noisy.softmax(1), z.softmax(1), atol=1e-6)
        True
    """
    if fraction == 0 or sigma == 0:
        return logits
    rows, classes = logits.shape
    place = {"dtype": logits.dtype, "device": logits.device}
    selected = torch.rand(rows if select == "sample" else 1, 1, device=logits.device) < fraction
    xi = selected * sigma * torch.randn(rows, classes if granularity == "logit" else 1, **place)
    return logits * (1 + xi) if mode == "multiplicative" else logits + xi


class NoisyLogits(Wrapper):
    """Another term on noisy logits of one network; see `perturbed`.

    Gradients of the student pass through the noise: a scaled logit scales its gradient.

    Args:
        term: The inner term, such as LogitMSE or KD.
        network: The network whose logits are perturbed.
        mode, granularity, select, fraction, sigma: As in `perturbed`.
    """

    tasks = None

    def __init__(
        self,
        term: Term,
        network: Network,
        mode: Mode,
        granularity: Granularity,
        select: Select,
        fraction: Probability | Schedule,
        sigma: NonNegative | Schedule,
    ):
        super().__init__(term)
        self.network = network
        self.mode: Mode = mode
        self.granularity: Granularity = granularity
        self.select: Select = select
        self.fraction, self.sigma = fraction, sigma

    def build(self, student: Shapes, teacher: Shapes | None, spec: DataSpec) -> None:
        if self.network == "teacher" and not self.needs_teacher:
            raise ValueError(
                f"noise on the teacher has no effect on {type(self.term).__name__}, which does not read it"
            )
        super().build(student, teacher, spec)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch, progress: Progress) -> Tensor:
        fraction, sigma = at(self.fraction, progress), at(self.sigma, progress)

        def noisy(outputs: Outputs) -> Outputs:
            return replace(
                outputs, logits=perturbed(outputs.logits, self.mode, self.granularity, self.select, fraction, sigma)
            )

        if self.network == "teacher":
            return self.term(student, noisy(teacher), batch, progress)
        return self.term(noisy(student), teacher, batch, progress)
