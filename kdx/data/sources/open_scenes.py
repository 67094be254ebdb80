"""Made-up scenes for open-vocabulary detection: classes with opaque names, some of which have no boxes."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kdx.core.notice import notice
from kdx.core.ranges import Count, Fraction, NonNegative, PositiveInt
from kdx.core.seed import derive, generator
from kdx.data.dataset import SELECTION, Splits
from kdx.data.order import Alternation, Mix
from kdx.data.proposals import (
    Proposals,
    Proposer,
    VisionLanguage,
    fingerprint,
    jittered,
    oracle,
    read_proposals,
    recall,
    write_proposals,
)
from kdx.data.scenes import SceneDataset, SceneSet
from kdx.data.sets import DataError, ExampleSet
from kdx.data.sources.scenes import COLOURS, SHAPES, SyntheticScenes
from kdx.tasks.open_boxes import OpenBoxes

LOOKS = [f"{colour}_{shape}" for shape in SHAPES for colour in COLOURS]
"""Colour and shape of each class, in the order of their names."""


@dataclass(frozen=True, kw_only=True)
class OpenScenes(SceneDataset):
    """Scenes of five shapes in four colours, 20 classes, of which novel ones have no box in training.

    Detection scenes have the boxes of base classes; novel objects are there without a box. Image-labelled scenes
    have the classes of all their objects and no box; a class-specific proposal stands for each class, as a pseudo box.
    All training scenes have class-agnostic proposals with embeddings, see `kdx.data.proposals`. The test set has the
    boxes of all classes. Batches of detection and of image-labelled scenes alternate.

    Attributes:
        novel: Positions of the novel classes. Every shape and colour also occurs in a base class.
        train_size, image_size, test_size: Number of detection, image-labelled and test scenes; an image_size of 0
            leaves out image-labelled batches.
        image_batches: Image-labelled batches after each detection batch.
        novel_objects: Whether detection scenes hold unlabelled novel objects; otherwise they are drawn again.
        objects, sizes, overlap, noise: As in `SyntheticScenes`.
        distractors: Grey bars outside the objects of each scene.
        count: Proposals of a scene, K.
        jitter: Standard deviation of the proposals' edges, as a share of the object's size.
        proposer: Finds the proposals; None for an oracle that knows all objects, see `kdx.data.proposals.oracle`.
        vision: Settings of the vision-language model that embeds the proposals.
        vision_scenes: Scenes of all classes that it learns from.
        cache: Folder for the proposals' files.
        seed: Chooses everything.
    """

    novel: Sequence[int]
    train_size: PositiveInt
    image_size: Count
    test_size: PositiveInt
    image_batches: PositiveInt
    novel_objects: bool
    objects: Sequence[Count]
    sizes: Sequence[Fraction]
    overlap: Fraction
    noise: NonNegative
    distractors: Count
    count: PositiveInt
    jitter: NonNegative
    proposer: Proposer | None
    vision: VisionLanguage
    vision_scenes: PositiveInt
    cache: str
    seed: Count

    @property
    def task(self) -> OpenBoxes:
        if self.num_classes != len(LOOKS):
            raise DataError(
                f"num_classes of {self.name} is {len(LOOKS)}: {len(SHAPES)} shapes in {len(COLOURS)} colours"
            )
        names = super().task.classes
        novel = tuple(self.novel)
        if not novel or len(set(novel)) != len(novel) or not all(0 <= c < self.num_classes for c in novel):
            raise DataError(f"dataset.novel must be different positions of classes, 0 to 19, got {list(novel)}")
        return OpenBoxes(names, novel, self.count, self.image_size > 0)

    def load(self) -> tuple[SceneSet, SceneSet]:
        if self.val_fraction:
            raise DataError(f"{self.name} has no validation split; set dataset.val_fraction=0")
        self.task  # noqa: B018 - raises for wrong classes
        return _loaded(self)

    def seen(
        self, train: ExampleSet, test: ExampleSet, val: ExampleSet | None, mix: Mix | Alternation | None = None
    ) -> Splits:
        images = train.targets["by_image"]
        return super().seen(train, test, val, Alternation(images, self.image_batches) if images.any() else None)


@cache
def _loaded_by(key: str, data: "_Hashed") -> tuple[SceneSet, SceneSet]:
    own = data.own
    boxes = drawn(own, "train", own.train_size, own.novel if not own.novel_objects else ())
    images = drawn(own, "images", own.image_size, ())
    test = drawn(own, "test", own.test_size, ())
    whole = joined(boxes, images)
    proposals = _proposals(own, whole, test, key)
    by_image = torch.arange(len(whole)) >= own.train_size
    pseudo, kinds = _pseudo_boxes(own, whole, by_image)
    hidden = torch.isin(whole.targets["box_labels"], torch.tensor(list(own.novel))) | by_image[:, None]
    labels = whole.targets["box_labels"].masked_fill(hidden, -1)
    known = {"by_image": by_image, "pseudo_boxes": pseudo, "pseudo_labels": kinds, **proposals.targets}
    return whole.with_targets(box_labels=labels, **known), test


class _Hashed:
    """A data set as an argument of a cached function, compared by its settings."""

    def __init__(self, own: OpenScenes, key: str):
        self.own, self.key = own, key

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Hashed) and other.key == self.key


def _loaded(own: OpenScenes) -> tuple[SceneSet, SceneSet]:
    told = [(f.name, getattr(own, f.name)) for f in fields(own) if f.name not in ("name", "cache", *SELECTION)]
    key = fingerprint(told)
    return _loaded_by(key, _Hashed(own, key))


def drawn(own: OpenScenes, split: str, size: int, without: Sequence[int]) -> SceneSet:
    """Scenes with distractors; `without` lists classes that the scenes must not hold."""
    kinds = [i for i in range(len(LOOKS)) if i not in without]
    source = SyntheticScenes(
        **{f.name: getattr(own, f.name) for f in fields(SyntheticScenes) if hasattr(own, f.name)}
        | {"classes": [LOOKS[i] for i in kinds], "num_classes": len(kinds), "train_size": 1, "test_size": 1}
    )
    if not size:
        source, size, empty = source, 1, True
    else:
        empty = False
    found = source.make(split, size)
    images = found.held
    assert images is not None
    for i in range(size):
        _add_distractors(own, images[i].numpy(), found.targets["boxes"][i].numpy(), f"{split}/{i}")
    labels = found.targets["box_labels"]
    found = found.with_targets(box_labels=torch.where(labels >= 0, torch.tensor(kinds)[labels.clamp(min=0)], -1))
    return found.subset(torch.arange(0)) if empty else found


def _add_distractors(own: OpenScenes, image: np.ndarray, boxes: np.ndarray, where: str) -> None:
    draws = np.random.default_rng(derive(own.seed, "distractors", where))
    h, w = image.shape[:2]
    for _ in range(own.distractors):
        tall = draws.integers(2)
        side = (int(draws.integers(6, 16)), 2) if tall else (2, int(draws.integers(6, 16)))
        y, x = int(draws.integers(h - side[0])), int(draws.integers(w - side[1]))
        grey = int(draws.integers(30, 225))
        apart = (boxes[:, 0] > x + side[1]) | (boxes[:, 2] < x) | (boxes[:, 1] > y + side[0]) | (boxes[:, 3] < y)
        if apart[(boxes[:, 2] > boxes[:, 0])].all():
            image[y : y + side[0], x : x + side[1]] = grey


def joined(first: SceneSet, second: SceneSet) -> SceneSet:
    """Two sets of scenes in memory as one; the targets are padded to the larger number of objects."""
    assert first.held is not None and second.held is not None
    most = max(first.targets["box_labels"].shape[1], second.targets["box_labels"].shape[1])

    def both(name: str) -> Tensor:
        parts = [part.targets[name] for part in (first, second)]
        if name != "scales":
            fill = -1 if name == "box_labels" else 0
            parts = [torch.cat([p, p.new_full((len(p), most - p.shape[1], *p.shape[2:]), fill)], 1) for p in parts]
        return torch.cat(parts)

    return SceneSet(
        None,
        {name: both(name) for name in first.targets},
        torch.cat([first.sizes, second.sizes]),
        first.shape,
        first.padding,
        torch.cat([first.held, second.held]),
    )


def _proposals(own: OpenScenes, scenes: SceneSet, test: SceneSet, key: str) -> Proposals:
    """The proposals of all scenes, from a file or made now."""
    path = Path(own.cache) / f"{own.name}-{key}.safetensors"
    if path.is_file():
        return read_proposals(path, key)
    size, g = (scenes.shape[1], scenes.shape[2]), generator(own.seed, "proposals")
    boxes, real = scenes.targets["boxes"], scenes.targets["box_labels"] >= 0
    internet = drawn(own, "internet", own.vision_scenes, ())
    assert internet.held is not None and scenes.held is not None and test.held is not None
    if own.proposer is None:
        found = torch.stack([oracle(b, r, own.count, size, own.jitter, g) for b, r in zip(boxes, real, strict=True)])
    else:
        found = own.proposer.propose(scenes.held, own.count, own.mean, own.std)
        novel = torch.isin(scenes.targets["box_labels"], torch.tensor(list(own.novel)))
        shares = [f"{100 * recall(found, boxes, wanted):.1f} %" for wanted in (real & ~novel, novel)]
        notice(
            f"{own.name}: {own.count} proposals cover {shares[0]} of the base objects and {shares[1]} of the novel ones"
        )
    names = own.task.classes
    model = own.vision.learned(names, internet.held, internet.targets["boxes"], internet.targets["box_labels"])
    accuracy = own.vision.accuracy(model, test.held, test.targets["boxes"], test.targets["box_labels"])
    made = Proposals(found, model.embed(scenes.held, found), accuracy)
    notice(f"{own.name}: the vision-language model recognises {100 * accuracy:.1f} % of the test objects' crops")
    write_proposals(path, made, key)
    return made


def _pseudo_boxes(own: OpenScenes, scenes: SceneSet, by_image: Tensor) -> tuple[Tensor, Tensor]:
    """A box [N, L, 4] for each class [N, L] of an image-labelled scene: a moved object of the class; -1 for padding."""
    boxes, labels = scenes.targets["boxes"], scenes.targets["box_labels"]
    size, g = (scenes.shape[1], scenes.shape[2]), generator(own.seed, "pseudo boxes")
    moved = jittered(boxes.flatten(0, 1), own.jitter, size, g).view_as(boxes)
    repeated = (labels[:, :, None] == labels[:, None]).tril(-1).any(2)
    return moved, labels.masked_fill(repeated | ~by_image[:, None], -1)
