"""One set of grey images in several domains: as it is, on coloured backgrounds, and blended with photographs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from kdx.core.ranges import Count, Fraction
from kdx.core.seed import generator
from kdx.data.dataset import Dataset, LabelledImages
from kdx.data.regime import stratified
from kdx.data.sets import DataError, ExampleSet, ImageSet, TensorSet

Domain = Literal["grey", "colour", "blended"]
DOMAIN = "domain"  # name of the target that holds an example's domain
WHITE = 255


@dataclass(frozen=True, kw_only=True)
class Domains(LabelledImages):
    """A data set of grey images, drawn in one or several domains of three channels.

    The domains follow each other in the training and in the test set; the target "domain" of an example is its domain's
    position in `domains`. An image of a domain depends on `domain_seed`, the split and its position alone, so that two
    data sets that share a domain share its pixels.

    Attributes:
        source: The grey images.
        domains: "grey" repeats the image in three channels; "colour" puts its white ink on a background of one random
            colour; "blended" takes the absolute difference to a random window of a photograph.
        shares: Share of each domain's training images, class-balanced; None for all. Test sets are whole.
        photos: Colour images for "blended".
        domain_seed: Seed of colours, windows and shares.

    References:
        Ojha, Li, Sundara Rajan, Liang, Lee, "What Knowledge Gets Distilled in Knowledge Distillation?", 2023.
        https://arxiv.org/abs/2205.16004
        Ganin et al., "Domain-Adversarial Training of Neural Networks", 2016 (MNIST-M, whose photographs are those of
        BSDS500). https://arxiv.org/abs/1505.07818
    """

    source: Dataset
    domains: Sequence[Domain]
    shares: Sequence[Fraction] | None
    photos: Dataset
    domain_seed: Count

    def __post_init__(self) -> None:
        known = ", ".join(get_args(Domain))
        if not self.domains or len(set(self.domains)) != len(self.domains):
            raise DataError(f"domains needs one or more different domains, found {list(self.domains)}; known: {known}")
        if self.shares is not None and len(self.shares) != len(self.domains):
            raise DataError(f"shares needs a number for each of {len(self.domains)} domains, found {list(self.shares)}")

    def class_names(self) -> list[str]:
        return self.source.class_names() if isinstance(self.source, LabelledImages) else super().class_names()

    def files(self) -> Mapping[str, Sequence[str]]:
        return {**self.source.files(), **(self.photos.files() if "blended" in self.domains else {})}

    def load(self) -> tuple[TensorSet, TensorSet]:
        train, test = (_images(part, self.source.name) for part in self.source.load())
        photos = (None, None)
        if "blended" in self.domains:
            photos = tuple(_images(part, self.photos.name) for part in self.photos.load())
        return self._drawn("train", train, photos[0], self.shares), self._drawn("test", test, photos[1], None)

    def _drawn(
        self, split: str, data: ImageSet, photos: ImageSet | None, shares: Sequence[Fraction] | None
    ) -> TensorSet:
        if data.shape[0] != 1:
            raise DataError(f"source: domains are drawn from grey images, but {self.source.name} has colours")
        source, rows = data.rows(torch.arange(len(data)))
        ink = torch.from_numpy(source[rows]).float() / data.scale
        parts, marks, labels = [], [], []
        for position, domain in enumerate(self.domains):
            g = generator(self.domain_seed, DOMAIN, domain, split)
            kept = torch.arange(len(data))
            images = draw(ink, domain, None if photos is None else _pixels(photos), g)
            if shares is not None and shares[position] < 1:
                mask = stratified(data.labels, shares[position], self.domain_seed, f"{DOMAIN} {domain}")
                kept = mask.nonzero().flatten()
            parts.append(images[kept])
            labels.append(data.labels[kept])
            marks.append(torch.full((len(kept),), position))
        return TensorSet(torch.cat(parts), {"labels": torch.cat(labels), DOMAIN: torch.cat(marks)}, WHITE)


def draw(ink: Tensor, domain: Domain, photos: Tensor | None, g: torch.Generator) -> Tensor:
    """Draw grey images in a domain.

    Args:
        ink: Grey values in [0, 1], where 1 is the ink, [N, H, W, 1].
        domain: The domain.
        photos: Colour images uint8 [M, h, w, 3] for "blended", at least as large.
        g: Random stream of colours and windows.

    Returns:
        uint8 [N, H, W, 3].

    Example:
        >>> g = torch.Generator().manual_seed(0)
        >>> draw(torch.ones(1, 1, 1, 1), "colour", None, g)  # ink is white on any background
        tensor([[[[255, 255, 255]]]], dtype=torch.uint8)
    """
    n, h, w, _ = ink.shape
    if domain == "grey":
        values = ink.expand(n, h, w, 3)
    elif domain == "colour":
        values = ink + (1 - ink) * torch.rand(n, 1, 1, 3, generator=g)
    else:
        if photos is None or photos.shape[3] != 3 or min(photos.shape[1] - h, photos.shape[2] - w) < 0:
            found = "none" if photos is None else list(photos.shape[1:])
            raise DataError(f"photos: 'blended' needs colour images of at least {h} x {w} pixels, found {found}")
        which = torch.randint(len(photos), (n,), generator=g)
        top = torch.randint(photos.shape[1] - h + 1, (n,), generator=g)
        left = torch.randint(photos.shape[2] - w + 1, (n,), generator=g)
        rows, columns = top[:, None] + torch.arange(h), left[:, None] + torch.arange(w)
        windows = photos[which[:, None, None], rows[:, :, None], columns[:, None, :]]
        values = (windows.float() / WHITE - ink).abs()
    return (values * WHITE).round().to(torch.uint8)


def _images(data: ExampleSet, name: str) -> ImageSet:
    if not isinstance(data, ImageSet) or not data.has_classes or data.dtype != np.uint8:
        raise DataError(f"{name} has no 8-bit images with classes, which domains are drawn from")
    return data


def _pixels(photos: ImageSet) -> Tensor:
    source, rows = photos.rows(torch.arange(len(photos)))
    return torch.from_numpy(source[rows])
