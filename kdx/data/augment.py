"""Random views of images as a pure function of (data seed, epoch, example).

All numbers of an epoch are drawn at once, for the whole source, and looked up by an example's place in
the source. So a view depends neither on the batch size, nor on the position in the epoch, nor on where a
run was resumed, nor on which other examples a regime keeps; and members of a sweep that share a data
seed share their views.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from kdx.core.ranges import Probability
from kdx.core.seed import generator
from kdx.data.crop import Crop
from kdx.data.mixing import Mixing
from kdx.data.pixels import mirror
from kdx.data.policy import Policy
from kdx.data.sets import ImageSet


@dataclass(frozen=True)
class Draws:
    """The random numbers of one epoch, a row for each example of the source; None where nothing is drawn."""

    crop: Tensor | None
    flip: Tensor | None
    policy: Tensor | None


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Crop, flip, policy, then mixing; each part is optional and draws from its own stream.

    Attributes:
        crop: Which window is seen; None for the whole image.
        flip: Probability of a left-right flip.
        policy: Colour and shape operations on the bytes; None for none.
        mixing: Mixes the samples of a batch after normalisation; None for none.
    """

    crop: Crop | None
    flip: Probability
    policy: Policy | None
    mixing: Mixing | None

    def draw(self, pool: int, seed: int, epoch: int) -> Draws:
        """The numbers of an epoch for a source of `pool` examples."""
        crop = flip = policy = None
        if self.crop is not None:
            crop = self.crop.draw(pool, generator(seed, "augment", epoch, "crop"))
        if self.flip:
            flip = torch.rand(pool, generator=generator(seed, "augment", epoch, "flip")) < self.flip
        if self.policy is not None:
            policy = self.policy.draw(pool, generator(seed, "augment", epoch, "policy"))
        return Draws(crop, flip, policy)

    def views(self, data: ImageSet, indices: Tensor, draws: Draws) -> Tensor:
        """Views of some examples before normalisation and mixing, uint8 [B, H, W, C]."""
        origin = data.origin[indices]
        if self.crop is not None and draws.crop is not None:
            images = self.crop.views(data, indices, draws.crop[origin])
        else:
            source, rows = data.rows(indices)
            images = source[rows]
        if draws.flip is not None:
            mirror(images, draws.flip[origin].numpy())
        out = torch.from_numpy(images)
        if self.policy is not None and draws.policy is not None:
            out = self.policy.apply(out, data.scale, draws.policy[origin])
        return out


PLAIN = Augmentation(crop=None, flip=0.0, policy=None, mixing=None)
