"""Random views of images as a pure function of (data seed, epoch, example).

All random numbers of an epoch are drawn at once for the whole source and indexed by an example's position in the
source. So a view is independent of the batch size, the position in the epoch, the step at which a run was resumed, and
the other examples that a regime keeps. Runs of a sweep with the same data seed see the same views.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kdx.core.ranges import PositiveInt, Probability
from kdx.core.seed import derive, generator
from kdx.data.sets import ImageSet
from kdx.data.views.crop import Crop, ResizedCrop
from kdx.data.views.jitter import ColorJitter
from kdx.data.views.mixing import Mixing
from kdx.data.views.pixels import mirror
from kdx.data.views.policy import Policy


@dataclass(frozen=True)
class Draws:
    """The random numbers of one epoch, with a row for each example of the source; None for unused parts.

    `further` holds the numbers of further views; `turn` is the epoch's position in the augmentation's cycle.
    """

    crop: Tensor | None
    flip: Tensor | None
    policy: Tensor | None
    further: tuple["Draws", ...] = ()
    turn: int = 0


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Crop, flip, policy, then mixing; each part is optional and has its own random stream.

    Attributes:
        crop: Random crop; None for the whole image.
        flip: Probability of a left-right flip.
        policy: Colour and shape operations on the bytes; None for no operations.
        mixing: Mixup or CutMix after normalisation; None for no mixing.
        cycle: Number of epochs after which the random numbers repeat, so that each example has at most this many
            views; None for no repetition. Mixing never repeats.
        repeats: Views of an example in an epoch, which then shows one example in `repeats`; 1 shows each once.
    """

    crop: Crop | None
    flip: Probability
    policy: Policy | ColorJitter | None
    mixing: Mixing | None
    cycle: PositiveInt | None
    repeats: PositiveInt = 1

    @property
    def needs_bytes(self) -> bool:
        """Whether it works on uint8 images alone, as colour operations and resizing do."""
        return self.policy is not None or isinstance(self.crop, ResizedCrop)

    @property
    def num_views(self) -> int | None:
        """Number of different views of an example, before mixing; None if unlimited, or not counted for repeats."""
        if self.repeats > 1:
            return None
        windows = 1 if self.crop is None else self.crop.num_windows
        if windows is None or self.policy is not None:
            return self.cycle
        return windows * self._sides

    def space(self, seed: int) -> str:
        """Key of the numbering of views: if it is equal for two augmentations, equal numbers mean equal views."""
        windows = 1 if self.crop is None else self.crop.num_windows
        if windows is None or self.policy is not None:
            return f"{self!r} of seed {seed}"
        flip = "sometimes" if self._sides == 2 else "always" if self.flip else "never"
        return f"crop {self.crop!r}, flip {flip}"

    @property
    def _sides(self) -> int:
        return 2 if 0 < self.flip < 1 else 1

    def number(self, origin: Tensor, draws: Draws) -> Tensor | None:
        """Number of each view within the source: the example's position times `num_views`, plus the view's own number.

        Args:
            origin: Positions of the examples in the source, int64 [B].
            draws: The epoch's random numbers.

        Returns:
            View numbers, int64 [B]; None if the number of views is unlimited.
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
        """Draw the random numbers of an epoch for a source of `pool` examples."""
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
        """Make the views of some examples, before normalisation and mixing, [B, H, W, C] in the set's dtype."""
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
        """Make all views of a batch; the first is that of `views`."""
        return (self.views(data, indices, draws),)

    def draw_repeats(self, pool: int, seed: int, epoch: int) -> list[Draws]:
        """Draw the random numbers of an epoch for each repeat; the first are those of `draw`."""
        return [self.draw(pool, derive(seed, "repeat", r) if r else seed, epoch) for r in range(self.repeats)]

    def repeated_views(
        self, data: ImageSet, indices: Tensor, repeat: Tensor, draws: Sequence[Draws]
    ) -> tuple[Tensor, ...]:
        """Make all views of a batch with repeats.

        Args:
            data: The images.
            indices: Positions of the examples, int64 [B].
            repeat: Number of the repeat of each, int64 [B].
            draws: The epoch's random numbers by repeat.
        """
        if len(draws) == 1:
            return self.all_views(data, indices, draws[0])
        places = [(repeat == r).nonzero().flatten() for r in range(len(draws))]
        parts = [self.all_views(data, indices[at], of) for at, of in zip(places, draws, strict=True) if len(at)]
        back = torch.cat(places).argsort()
        return tuple(torch.cat(view)[back] for view in zip(*parts, strict=True))


@dataclass(frozen=True, kw_only=True)
class MultiView(Augmentation):
    """Several views of each example: this augmentation's own, and one for each of `further`.

    Each view has its own random streams; the first equals the view of the same augmentation alone. A batch holds the
    others in `Batch.views`.

    Attributes:
        further: Augmentations of the other views.
    """

    further: Sequence[Augmentation]

    def __post_init__(self) -> None:
        if not self.further:
            raise ValueError("MultiView needs at least one augmentation under further")
        if any(view.mixing is not None for view in (self, *self.further)):
            raise ValueError("several views cannot be combined with mixing; set mixing to null")

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
