"""Proposals: class-agnostic boxes of images with an embedding of each crop, and their file."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from kdx.core.errors import reason
from kdx.core.files import atomic_write
from kdx.data.sets import DataError

FORMAT = "kdx proposals 1"


@dataclass(frozen=True)
class Proposals:
    """The proposals of a set of images, made before training.

    Attributes:
        boxes: x1, y1, x2, y2 in pixels of the input, float32 [N, K, 4], the best first.
        embeddings: What a vision-language model says about each crop, float32 [N, K, D]; zeros for a missing proposal.
        accuracy: Share of the objects that the model recognises in their own crops; NaN if unknown.
    """

    boxes: Tensor
    embeddings: Tensor
    accuracy: float

    def __post_init__(self) -> None:
        if self.boxes.shape != (*self.embeddings.shape[:2], 4):
            raise DataError(
                f"proposals need boxes [N, K, 4] and embeddings [N, K, D], got {list(self.boxes.shape)} and "
                f"{list(self.embeddings.shape)}"
            )

    @property
    def targets(self) -> dict[str, Tensor]:
        """Targets of a batch by name."""
        return {"proposals": self.boxes, "proposal_embeddings": self.embeddings}


class CropEmbedder(Protocol):
    """A vision-language model: embeds crops into the space of the class names."""

    def embed(self, images: Tensor, boxes: Tensor) -> Tensor:
        """Embeddings [N, K, D] of the crops of images uint8 [N, H, W, C] in boxes [N, K, 4]."""
        ...


class Proposer(Protocol):
    """Finds class-agnostic boxes. Its text tells equal settings from others."""

    def propose(self, images: Tensor, count: int, mean: Sequence[float], std: Sequence[float]) -> Tensor:
        """Boxes [N, count, 4] in images uint8 [N, H, W, C], the best first; zeros for missing ones.

        Args:
            images: The images.
            count: Number of boxes of each.
            mean, std: Statistics of the data set's images, for each channel.
        """
        ...


class VisionLanguage(Protocol):
    """Settings of a vision-language model that learns from objects of all classes, as CLIP learned from the internet.

    It is a dataclass, so that its text tells equal settings from others.
    """

    def learned(self, names: tuple[str, ...], images: Tensor, boxes: Tensor, labels: Tensor) -> CropEmbedder:
        """The model, after it has learned from objects: images uint8 [N, H, W, C], boxes [N, n, 4], labels [N, n]."""
        ...

    def accuracy(self, model: CropEmbedder, images: Tensor, boxes: Tensor, labels: Tensor) -> float:
        """Share of the objects whose crop is closest to the name of its class."""
        ...


def read_proposals(path: Path, key: str) -> Proposals:
    """Read a file of `write_proposals`.

    Args:
        path: The file.
        key: Fingerprint of the settings that it must belong to.

    Raises:
        DataError: The file is damaged, or belongs to other settings.
    """
    from safetensors import safe_open

    try:
        with safe_open(str(path), "pt") as file:
            told = file.metadata() or {}
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        if told["format"] != FORMAT:
            raise ValueError(f"its format is '{told['format']}'")
        if told["key"] != key:
            raise ValueError("it belongs to other settings")
        return Proposals(found["boxes"], found["embeddings"], float(told["accuracy"]))
    except Exception as error:
        raise DataError(f"the proposals {path} cannot be used ({reason(error)}); delete the file") from error


def write_proposals(path: Path, proposals: Proposals, key: str) -> None:
    """Write proposals to a safetensors file, at once or not at all; see `read_proposals`."""
    from safetensors.torch import save

    told = {"format": FORMAT, "key": key, "accuracy": repr(proposals.accuracy)}
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        file.write(save({"boxes": proposals.boxes, "embeddings": proposals.embeddings}, told))


def fingerprint(*facts: object) -> str:
    """First 16 hexadecimal digits of the SHA-256 of the facts' texts.

    Example:
        >>> fingerprint("scenes", 5) == fingerprint("scenes", 5), fingerprint("scenes", 5) == fingerprint("scenes", 6)
        (True, False)
    """
    return hashlib.sha256("\n".join(map(repr, facts)).encode()).hexdigest()[:16]


def oracle(
    boxes: Tensor, real: Tensor, count: int, size: tuple[int, int], jitter: float, draws: torch.Generator
) -> Tensor:
    """Proposals of an imperfect objectness: all objects, moved, and random boxes, those of the highest score first.

    A score is the overlap with the nearest object plus noise.

    Args:
        boxes: Objects of one image, known and novel ones alike, [n, 4].
        real: Which of them are objects and no padding, bool [n].
        count: Number of proposals K.
        size: Height and width of the image.
        jitter: Standard deviation of each edge, as a share of the object's size.
        draws: Random numbers.

    Returns:
        float32 [K, 4], within the image.

    Example:
        >>> box, real = torch.tensor([[8.0, 8.0, 40.0, 40.0]]), torch.tensor([True])
        >>> found = oracle(box, real, 3, (64, 64), 0.0, torch.Generator())
        >>> found.shape, found[0].tolist()
        (torch.Size([3, 4]), [8.0, 8.0, 40.0, 40.0])
    """
    from torchvision.ops import box_iou

    h, w = size
    objects = boxes[real]
    moved = jittered(objects, jitter, size, draws)
    low = torch.rand(2 * count, 2, generator=draws) * torch.tensor([0.8 * w, 0.8 * h])
    side = (0.15 + 0.35 * torch.rand(2 * count, 2, generator=draws)) * torch.tensor([float(w), float(h)])
    other = torch.cat([low, torch.minimum(low + side, torch.tensor([float(w), float(h)]))], 1)
    every = torch.cat([moved, other])
    score = box_iou(every, objects).amax(1) if len(objects) else torch.zeros(len(every))
    score = score + 0.1 * torch.randn(len(every), generator=draws)
    return every[score.argsort(descending=True, stable=True)[:count]].float()


def jittered(boxes: Tensor, jitter: float, size: tuple[int, int], draws: torch.Generator) -> Tensor:
    """Boxes [n, 4] with each edge moved by a normal share of the box's size, in the image and at least 2 pixels wide.

    Example:
        >>> jittered(torch.tensor([[2.0, 2.0, 9.0, 9.0]]), 0.0, (16, 16), torch.Generator()).tolist()
        [[2.0, 2.0, 9.0, 9.0]]
    """
    sides = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    moved = boxes + jitter * sides * torch.randn(boxes.shape, generator=draws)
    high = torch.tensor([size[1], size[0]], dtype=moved.dtype)
    low = torch.minimum(moved[:, :2].clamp(min=0), high - 2)
    return torch.cat([low, torch.minimum(torch.maximum(moved[:, 2:], low + 2), high)], 1)


def recall(boxes: Tensor, objects: Tensor, wanted: Tensor, overlap: float = 0.5) -> float:
    """Share of the wanted objects [N, n], a mask, of boxes [N, n, 4] that a proposal [N, K, 4] covers; NaN without any.

    Example:
        >>> objects = torch.tensor([[[0.0, 0.0, 4.0, 4.0], [5.0, 5.0, 9.0, 9.0]]])
        >>> recall(objects[:, :1], objects, torch.tensor([[True, True]]))
        0.5
    """
    from torchvision.ops import box_iou

    best = torch.stack([box_iou(own, found).amax(1) for own, found in zip(objects, boxes, strict=True)])
    return float((best[wanted] >= overlap).double().mean())
