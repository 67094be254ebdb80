"""Proposals of a trained detector, in place of those of an oracle."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from kdx.core.errors import UserError, reason
from kdx.models.detectors.faster_rcnn import FasterRCNN
from kdx.models.weights import load_weights

CHUNK = 50  # images at a time; another number would round differently


@dataclass(frozen=True, kw_only=True, repr=False)
class DetectorProposals:
    """Class-agnostic boxes of a detector's region proposal network, the most certain ones of each image.

    A network that learned base classes alone takes unlabelled objects for background, which an oracle does not.

    Attributes:
        net: The detector; its own weights are replaced.
        weights: File of its trained weights, such as `student.safetensors` of a run.

    References:
        Rasheed et al., "Bridging the Gap between Object and Image-level Representations for Open-Vocabulary
        Detection", 2022, section 4.3. https://arxiv.org/abs/2207.03482
    """

    net: FasterRCNN
    weights: str

    def __repr__(self) -> str:
        """By the content of the weights, so that equal settings have equal texts. Raises UserError without the file."""
        try:
            content = Path(self.weights).read_bytes()
        except OSError as error:
            raise UserError(f"dataset.proposer.weights={self.weights}: {reason(error)}") from error
        return f"{type(self).__name__}({hashlib.sha256(content).hexdigest()})"

    @torch.no_grad()
    def propose(self, images: Tensor, count: int, mean: Sequence[float], std: Sequence[float]) -> Tensor:
        """Boxes [N, count, 4] in images uint8 [N, H, W, C], the best first; zeros where an image has fewer.

        Args:
            images: The images.
            count: Number of boxes of each.
            mean, std: Statistics that the detector's inputs have, for each channel.
        """
        load_weights(self.net, self.weights)
        net = self.net.eval()
        centre, spread = (torch.tensor(list(values))[:, None, None] for values in (mean, std))
        out = torch.zeros(len(images), count, 4)
        for start in range(0, len(images), CHUNK):
            pixels = (images[start : start + CHUNK].permute(0, 3, 1, 2) / 255 - centre) / spread
            sizes = torch.tensor([list(pixels.shape[2:])]).expand(len(pixels), 2)
            found = net.proposals(*net.dense(pixels, net.pyramid(pixels)), sizes)
            for i in range(len(pixels)):
                best = found.boxes[found.owner == i][:count]
                out[start + i, : len(best)] = best
        return out
