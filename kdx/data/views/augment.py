"""Random views of images as a pure function of (data seed, epoch, example).

All numbers of an epoch are drawn at once, for the whole source, and looked up by an example's place in
the source. So a view depends neither on the batch size, nor on the position in the epoch, nor on where a
run was resumed, nor on which other examples a regime keeps; and members of a sweep that share a data
seed share their views.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kdx.core.ranges import PositiveInt, Probability
from kdx.core.seed import derive, generator
from kdx.data.sets import ImageSet
from kdx.data.views.crop import Crop, ResizedCrop
from kdx.data.views.mixing import Mixing
from kdx.data.views.pixels import mirror
from kdx.data.views.policy import Policy


@dataclass(frozen=True)
class Draws:
    """The random numbers of one epoch, a row for each example of the source; None where nothing is drawn.

    `further` holds those of further views; `turn` is the epoch's place in the augmentation's cycle.
    """

    crop: Tensor | None
    flip: Tensor | None
    policy: Tensor | None
    further: tuple["Draws", ...] = ()
    turn: int = 0


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Crop, flip, policy, then mixing; each part is optional and draws from its own stream.

    Attributes:
        crop: Which window is seen; None for the whole image.
        flip: Probability of a left-right flip.
        policy: Colour and shape operations on the bytes; None for none.
        mixing: Mixes the samples of a batch after normalisation; None for none.
        cycle: Epochs after which the random numbers come again, so that each example has this many views at
            most; None for never. Mixing draws anew all the same.
    """

    crop: Crop | None
    flip: Probability
    policy: Policy | None
    mixing: Mixing | None
    cycle: PositiveInt | None

    @property
    def needs_bytes(self) -> bool:
        """Whether it works on uint8 images alone, as colour operations and resizing do."""
        return self.policy is not None or isinstance(self.crop, ResizedCrop)

    @property
    def num_views(self) -> int | None:
        """How many different views there are of an example, before mixing; None where they are endless."""
        windows = 1 if self.crop is None else self.crop.num_windows
        if windows is None or self.policy is not None:
            return self.cycle
        return windows * self._sides

    def space(self, seed: int) -> str:
        """What the numbers of views depend on; where two augmentations say the same, a number is the same view."""
        windows = 1 if self.crop is None else self.crop.num_windows
        if windows is None or self.policy is not None:
            return f"{self!r} of seed {seed}"
        flip = "sometimes" if self._sides == 2 else "always" if self.flip else "never"
        return f"crop {self.crop!r}, flip {flip}"

    @property
    def _sides(self) -> int:
        return 2 if 0 < self.flip < 1 else 1

    def number(self, origin: Tensor, draws: Draws) -> Tensor | None:
        """Number of a view among all those of a source: that of the example times `num_views`, plus that of its view.

        Args:
            origin: Positions of the examples in the source, int64 [B].
            draws: Of the epoch.

        Returns:
            int64 [B]; None where views are endless.
        """
        if self.num_views is None:
            return None
        first = origin * self.num_views
        windows = 1 if self.crop is None else self.crop.num_windows
        if windows is None or self.policy is not None:
            return first + draws.turn
        if self.crop is not None and draws.crop is not None:
            first = first + self.crop.number(draws.crop[origin]) * self._sides
        return first if self._sides == 1 or draws.flip is None else first + draws.flip[origin]

    def draw(self, pool: int, seed: int, epoch: int) -> Draws:
        """The numbers of an epoch for a source of `pool` examples."""
        epoch = epoch if self.cycle is None else epoch % self.cycle
        crop = flip = policy = None
        if self.crop is not None:
            crop = self.crop.draw(pool, generator(seed, "augment", epoch, "crop"))
        if self.flip:
            flip = torch.rand(pool, generator=generator(seed, "augment", epoch, "flip")) < self.flip
        if self.policy is not None:
            policy = self.policy.draw(pool, generator(seed, "augment", epoch, "policy"))
        return Draws(crop, flip, policy, turn=epoch)

    def views(self, data: ImageSet, indices: Tensor, draws: Draws) -> Tensor:
        """Views of some examples before normalisation and mixing, [B, H, W, C] in the set's dtype."""
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

    def all_views(self, data: ImageSet, indices: Tensor, draws: Draws) -> tuple[Tensor, ...]:
        """All views that a batch carries, the one that `views` makes first."""
        return (self.views(data, indices, draws),)


@dataclass(frozen=True, kw_only=True)
class MultiView(Augmentation):
    """Several views of each example: this augmentation's own, and one by each of some others.

    Each view draws from streams of its own; the first is what the same augmentation makes by itself. In a
    batch the others are `Batch.views`.

    Attributes:
        further: The augmentations of the other views.
    """

    further: Sequence[Augmentation]

    def __post_init__(self) -> None:
        if not self.further:
            raise ValueError("several views need at least one augmentation under further")
        if any(view.mixing is not None for view in (self, *self.further)):
            raise ValueError("views of the same example cannot be mixed with other examples: set mixing to null")

    @property
    def needs_bytes(self) -> bool:
        return super().needs_bytes or any(view.needs_bytes for view in self.further)

    def draw(self, pool: int, seed: int, epoch: int) -> Draws:
        drawn = (view.draw(pool, derive(seed, "view", i), epoch) for i, view in enumerate(self.further, 1))
        return replace(super().draw(pool, seed, epoch), further=tuple(drawn))

    def all_views(self, data: ImageSet, indices: Tensor, draws: Draws) -> tuple[Tensor, ...]:
        others = (v.views(data, indices, d) for v, d in zip(self.further, draws.further, strict=True))
        return self.views(data, indices, draws), *others


PLAIN = Augmentation(crop=None, flip=0.0, policy=None, mixing=None, cycle=None)
