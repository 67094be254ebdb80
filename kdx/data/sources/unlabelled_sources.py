"""Unlabelled examples from outside the training set, in its form: other data sets, noise, files of images or text."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from kdx.core.batch import UNLABELLED
from kdx.core.ranges import Count, PositiveInt, Probability
from kdx.core.seed import generator
from kdx.data.dataset import Dataset, ImageDataset
from kdx.data.encoded import EncodedSet, ImageFiles, resized
from kdx.data.sets import DataError, ExampleSet, ImageSet, TensorSet
from kdx.data.sources.walk import SUFFIXES, Skipped, images_in
from kdx.data.text.dataset import TextDataset
from kdx.data.text.token_set import TokenSet

LUMINANCE = np.array([0.299, 0.587, 0.114])  # of ITU-R BT.601, as Pillow's grey


class Source:
    """A source of unlabelled examples."""

    def take(self, home: ExampleSet, dataset: Dataset) -> ExampleSet:
        """Load the examples without labels, as a training set has them: shape and pixel values, or tokenizer.

        Args:
            home: The training set.
            dataset: Its data set config.

        Raises:
            DataError: The source has other examples than the training set.
        """
        raise NotImplementedError


class ImageSource(Source):
    """A source of unlabelled images."""

    def take(self, home: ExampleSet, dataset: Dataset) -> TensorSet:
        if not isinstance(home, ImageSet) or not isinstance(dataset, ImageDataset):
            raise DataError(
                f"transfer.unlabelled gives images, and {dataset.name} has none; transfer=corpus reads texts"
            )
        return self.images(home, dataset)

    def images(self, home: ImageSet, dataset: ImageDataset) -> TensorSet:
        """The images, see `Source.take`."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class OtherData(Source):
    """The training set of another data set, without its labels.

    Texts are tokenised as this data set's. Images are resized to this data set's size, converted between grey and
    colour, and rescaled so that white matches. They are then normalised with this data set's statistics, as a teacher
    of it expects, and kept in memory.

    Attributes:
        dataset: Any option of `dataset`, with its regime.
        count: Number of images; None for all.
        seed: Seed that selects them.
    """

    dataset: Dataset
    count: PositiveInt | None
    seed: Count

    def take(self, home: ExampleSet, dataset: Dataset) -> ExampleSet:
        other = self.dataset
        if isinstance(other, TextDataset) and isinstance(dataset, TextDataset):
            other = replace(other, tokenizer=dataset.tokenizer, max_length=dataset.max_length, index=dataset.index)
        train = other.splits().train
        if not any(isinstance(train, kind) and isinstance(home, kind) for kind in (ImageSet, TokenSet)):
            raise DataError(f"{self.dataset.name} has no examples of the kind that {dataset.name} has")
        if self.count is not None and self.count < len(train):
            chosen = torch.randperm(len(train), generator=generator(self.seed, "other", "count"))[: self.count]
            train = train.subset(chosen.sort().values)
        if isinstance(train, TokenSet):
            return train.unlabelled()
        assert isinstance(train, ImageSet) and isinstance(home, ImageSet)
        return _unlabelled(converted(train, home), home)


@dataclass(frozen=True, kw_only=True)
class Noise(ImageSource):
    """A fixed set of images of independent random pixels.

    Attributes:
        kind: "uniform" over all pixel values, or "gaussian" with the data set's mean and std of each channel.
        count: Number of images; None for the number of training examples.
        seed: Seed of the pixels.
    """

    kind: Literal["uniform", "gaussian"]
    count: PositiveInt | None
    seed: Count

    def images(self, home: ImageSet, dataset: ImageDataset) -> TensorSet:
        c, h, w = home.shape
        size, g = (self.count or len(home), h, w, c), generator(self.seed, "noise", self.kind)
        if self.kind == "uniform":
            images = torch.randint(home.scale + 1, size, generator=g, dtype=torch.uint8)
        else:
            mean, std = (torch.tensor(list(v), dtype=torch.float32) for v in (dataset.inputs.mean, dataset.inputs.std))
            images = _pixels(torch.randn(size, generator=g).mul_(std).add_(mean), home.scale)
        return _unlabelled(images, home)


@dataclass(frozen=True, kw_only=True)
class Gaussians(ImageSource):
    """Synthetic images: samples of a normal distribution fitted to the pixels of each class of the training set.

    A plain generative model in place of a generator that needs its own training. Classes have equal shares.

    Attributes:
        count: Number of images; None for the number of training examples.
        shrinkage: Share of the diagonal of a class's covariance that replaces the covariance, so that few examples
            make a distribution too.
        seed: Seed of the samples.
    """

    count: PositiveInt | None
    shrinkage: Probability
    seed: Count

    def images(self, home: ImageSet, dataset: ImageDataset) -> TensorSet:
        c, h, w = home.shape
        source, rows = home.rows(torch.arange(len(home)))
        pixels = torch.from_numpy(source[rows]).double().flatten(1) / home.scale
        classes, g, size = home.labels.unique().tolist(), generator(self.seed, "gaussians"), self.count or len(home)
        parts = []
        for position, label in enumerate(classes):
            of = pixels[home.labels == label]
            offsets = of - of.mean(0)
            freedom = max(1, len(of) - 1)
            share = size // len(classes) + (position < size % len(classes))
            # a sum of the examples' offsets with normal weights has their covariance, without a matrix of all pixels
            joint = torch.randn(share, len(of), generator=g, dtype=torch.float64) @ offsets / freedom**0.5
            alone = (
                torch.randn(share, c * h * w, generator=g, dtype=torch.float64)
                * (offsets.square().sum(0) / freedom).sqrt()
            )
            parts.append(of.mean(0) + (1 - self.shrinkage) ** 0.5 * joint + self.shrinkage**0.5 * alone)
        return _unlabelled(_pixels(torch.cat(parts).view(-1, h, w, c), home.scale), home)


@dataclass(frozen=True, kw_only=True)
class Files(ImageSource):
    """Images from a file or a folder, such as the output of a generator.

    Attributes:
        path: A safetensors file whose tensor "images" is uint8 [N, H, W, C] from 0 to 255 or a float
            [N, C, H, W] from 0 to 1; or a folder, whose image files are all read, sorted by name.
        sha256: SHA-256 of the contents, filled in automatically.
    """

    path: str
    sha256: str | None

    def images(self, home: ImageSet, dataset: ImageDataset) -> TensorSet:
        path = Path(self.path).expanduser()
        if path.is_dir():
            skipped = Skipped()
            (files,) = images_in([str(path)], skipped)
            if not files:
                less = f"; skipped: {skipped}" if skipped else ""
                raise DataError(f"{path} contains no image files ({', '.join(SUFFIXES)}){less}")
            skipped.report(str(path))
            labels = torch.full((len(files),), UNLABELLED)
            found = EncodedSet(ImageFiles(files), labels, home.shape, max(home.shape[1:])).in_memory()
        else:
            found = _read(path)
        return _unlabelled(converted(found, home), home)


def converted(data: ImageSet, home: ImageSet) -> Tensor:
    """Convert images to the shape and pixel values of another set, uint8 [N, H, W, C]."""
    if data.dtype != np.uint8:
        raise DataError(f"images of another data set must have dtype uint8 to be converted, found {data.dtype}")
    parts = []
    for indices in torch.arange(len(data)).split(1024):
        source, rows = data.rows(indices)
        parts.append(torch.from_numpy(np.stack(list(_fitted(source[rows], home)))))
    images = torch.cat(parts)
    return images if data.scale == home.scale else _pixels(images.float() / data.scale, home.scale)


def _fitted(images: np.ndarray, home: ImageSet) -> Iterator[np.ndarray]:
    c, h, w = home.shape
    for image in images:
        if image.shape[2] != c:
            if {image.shape[2], c} != {1, 3}:
                raise DataError(f"images of {image.shape[2]} channels cannot be converted to {c}")
            grey = image @ LUMINANCE if c == 1 else image[..., 0]
            image = np.repeat(np.rint(grey).astype(np.uint8)[..., None], c, axis=2)
        yield image if image.shape[:2] == (h, w) else resized(image, h, w)


def _pixels(values: Tensor, scale: int) -> Tensor:
    """Round values in [0, 1] to integer pixel values."""
    return values.clamp_(0, 1).mul_(scale).round_().to(torch.uint8)


def _unlabelled(images: Tensor, home: ImageSet) -> TensorSet:
    if home.dtype != np.uint8:
        raise DataError(f"other images can join a data set of 8-bit images alone, and this one gives {home.dtype}")
    return TensorSet(images, torch.full((len(images),), UNLABELLED), home.scale)


def _read(path: Path) -> TensorSet:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise DataError(f"transfer.unlabelled.path={path} is neither a file nor a folder")
    try:
        images = load_file(path)["images"]
    except (KeyError, SafetensorError) as error:
        raise DataError(f"{path} is not a safetensors file with a tensor 'images': {error}") from None
    if images.ndim == 4 and images.is_floating_point() and images.numel():
        low, high = (float(v) for v in torch.aminmax(images.float()))
        if not 0 <= low <= high <= 1:  # negated, so that NaN is refused
            raise DataError(f"the images of {path} are floats from {low:.6g} to {high:.6g}; floats must be from 0 to 1")
        images = _pixels(images.float().permute(0, 2, 3, 1), 255)
    if images.ndim != 4 or images.dtype != torch.uint8 or not len(images):
        raise DataError(
            f"the images of {path} must be uint8 [N, H, W, C] or float [N, C, H, W]; "
            f"found {images.dtype} {list(images.shape)}"
        )
    return TensorSet(images, torch.full((len(images),), UNLABELLED), 255)
