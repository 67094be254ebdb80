"""FT: an autoencoder compresses the teacher's features to factors, which the student's features predict."""

from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from kdx.core.batch import Batch
from kdx.core.functional import unit
from kdx.core.outputs import Outputs, Shapes
from kdx.core.ranges import Fraction, NonNegative
from kdx.core.schedule import Progress
from kdx.core.spec import DataSpec
from kdx.losses.base.adapters import Norm
from kdx.losses.base.memory_format import examples
from kdx.losses.base.numerics import full_precision
from kdx.losses.base.pairs import Paired
from kdx.losses.features.at import to_common_size

Compared = Literal["attention", "whole"]


@full_precision
def factor_distance(student_factor: Tensor, teacher_factor: Tensor, compared: Compared) -> Tensor:
    """Mean absolute difference of two factors, each scaled to length 1.

    Args:
        student_factor: [B, K, H, W].
        teacher_factor: [B, K, H', W']; gets no gradient. The larger is pooled down to the smaller.
        compared: 'whole' factors, as in the paper, or their 'attention', the mean square over channels, which
            is what the CRD paper's table was made with.

    Returns:
        [B].

    References:
        Kim, Park, Kwak, "Paraphrasing Complex Network: Network Compression via Factor Transfer", 2018.
        https://arxiv.org/abs/1802.04977

    Example:
        >>> factor = torch.rand(2, 3, 4, 4)
        >>> factor_distance(2 * factor, factor, "whole").abs().max() < 1e-6
        tensor(True)
    """
    pair = to_common_size(student_factor, teacher_factor.detach())
    if compared == "attention":
        mine, theirs = (unit(f.square().mean(1).flatten(1), 1) for f in pair)
    else:
        mine, theirs = (unit(f.flatten(1), 1) for f in pair)
    return (mine - theirs).abs().mean(1)


def _coder(layer: type[nn.Conv2d] | type[nn.ConvTranspose2d], widths: list[int], norm: bool) -> nn.Sequential:
    parts: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        parts += [layer(inputs, outputs, 3, padding=1), *([Norm(outputs)] if norm else []), nn.LeakyReLU(0.1)]
    return nn.Sequential(*parts)


class FT(Paired):
    """Factor transfer in two stages: the paraphraser learns first, then the student translates into its factors.

    Until `paraphrase_epochs`, the value is the mean squared error with which the paraphraser, an autoencoder of three
    convolutions each way, reconstructs the teacher's map; the student has no gradient. From then on, the value is the
    distance of the student's translation from the teacher's factors, and the paraphraser has no gradient, so the
    optimiser leaves it unchanged. A schedule changes the weight between the stages, and `Staged` starts the labels'
    term in the second.

    Args:
        student_role: The student's last map.
        teacher_role: The teacher's last map; its shape may differ.
        factor_fraction: Channels of the factors over those of the teacher's map.
        compared: 'attention' or 'whole', see `factor_distance`.
        paraphrase_epochs: Schedule epochs of the first stage.
    """

    called = "FT"
    encoder: nn.Module
    decoder: nn.Module
    translator: nn.Module

    def __init__(
        self,
        student_role: str,
        teacher_role: str,
        factor_fraction: Fraction,
        compared: Compared,
        paraphrase_epochs: NonNegative,
    ):
        super().__init__({student_role: teacher_role})
        if compared not in ("attention", "whole"):
            raise ValueError(f"compared must be 'attention' or 'whole', got {compared!r}")
        self.factor_fraction, self.paraphrase_epochs = factor_fraction, paraphrase_epochs
        self.compared: Compared = compared

    def build(self, student: Shapes, teacher: Shapes | None, spec: DataSpec) -> None:
        positions = self.compared == "attention"
        ((mine, theirs),) = (self.maps_of_positions if positions else self.maps)(student, teacher)
        width = theirs[0]
        factors = max(1, int(width * self.factor_fraction))
        self.encoder = _coder(nn.Conv2d, [width, width, factors, factors], norm=False)
        self.decoder = _coder(nn.ConvTranspose2d, [factors, factors, width, width], norm=False)
        self.translator = _coder(nn.Conv2d, [mine[0], mine[0], factors, factors], norm=True)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch, progress: Progress) -> Tensor:
        ((mine, theirs),) = self.features(student, teacher)
        if progress.epoch < self.paraphrase_epochs:
            return examples(self.decoder(self.encoder(theirs)) - theirs).square().mean(1)
        with torch.no_grad():
            factor = self.encoder(theirs)
        return factor_distance(self.translator(mine), factor, self.compared)
