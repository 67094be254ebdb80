"""COCO's objects with novel classes, and proposals from files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from kdx.core.errors import reason
from kdx.core.ranges import Count, PositiveInt
from kdx.data.dataset import Splits
from kdx.data.order import Alternation, Mix
from kdx.data.scenes import SceneSet
from kdx.data.sets import DataError, ExampleSet
from kdx.data.sources.coco import Coco
from kdx.tasks.open_boxes import OpenBoxes


@dataclass(frozen=True, kw_only=True)
class OpenCoco(Coco):
    """COCO with classes that have no box in training; all classes are scored together in the test set.

    `proposals` is a safetensors file, made once by an objectness and a vision-language model, with rows in the order
    of the training images' ids and boxes x1, y1, x2, y2 in pixels of the original images:
        boxes [N, K, 4], embeddings [N, K, D]: Class-agnostic proposals; embeddings of zeros for a missing one.
        pseudo_boxes [N, L, 4], pseudo_labels [N, L]: A box for each class that the image's labels name, and the
            position of the class, -1 for padding; only for `image_batches` above 0, when each training image is also
            an image-labelled one, and batches alternate.

    Attributes:
        novel: Names of the novel classes.
        proposals: Path of the file in `root/folder`; None for a detector that needs none.
        count: Proposals of an image, K.
        image_batches: Image-labelled batches after each batch with boxes; 0 for none.
    """

    novel: Sequence[str]
    proposals: str | None
    count: PositiveInt
    image_batches: Count

    @property
    def task(self) -> OpenBoxes:
        names = super().task.classes
        if strange := [name for name in self.novel if name not in names]:
            raise DataError(f"dataset.novel has '{strange[0]}', which is not in dataset.classes")
        novel = tuple(names.index(name) for name in self.novel)
        return OpenBoxes(names, novel, 0 if self.proposals is None else self.count, self.image_batches > 0)

    def files(self) -> Mapping[str, Sequence[str]]:
        found = super().files()
        if self.proposals is None or not found:
            return found
        return {folder: [*names, str(self.base / self.proposals)] for folder, names in found.items()}

    def load(self) -> tuple[SceneSet, SceneSet]:
        if self.val_fraction and self.proposals is not None:
            raise DataError(f"{self.name} has no validation split beside proposals; set dataset.val_fraction=0")
        train, test = super().load()
        hidden = torch.isin(train.targets["box_labels"], torch.tensor(self.task.novel))
        train = train.with_targets(box_labels=train.targets["box_labels"].masked_fill(hidden, -1))
        n, k = len(train), self.count
        kept: dict[str, Tensor] = {
            "by_image": torch.zeros(n, dtype=torch.bool),
            "proposals": torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(n, k, 4).contiguous(),
            "proposal_embeddings": torch.zeros(n, k, 1),
            "pseudo_boxes": torch.zeros(n, 1, 4),
            "pseudo_labels": torch.full((n, 1), -1),
        }
        if self.image_batches and self.proposals is None:
            raise DataError(f"image-labelled batches of {self.name} need dataset.proposals with pseudo boxes")
        if self.proposals is None:
            return train.with_targets(**kept), test
        kept |= self._read(self.base / self.proposals, train)
        train = train.with_targets(**kept)
        if not self.image_batches:
            return train, test
        both = train.subset(torch.arange(n).repeat(2))
        by_image = torch.arange(2 * n) >= n
        labels = both.targets["box_labels"].masked_fill(by_image[:, None], -1)
        return both.with_targets(by_image=by_image, box_labels=labels), test

    def _read(self, path: Path, train: SceneSet) -> dict[str, Tensor]:
        """Targets from the file, with boxes in pixels of the input, for the images that are trained on."""
        from safetensors.torch import load_file

        try:
            found = load_file(str(path))
            boxes, embeddings = found["boxes"].float(), found["embeddings"].float()
            if boxes.shape != (train.pool, self.count, 4) or embeddings.shape[:2] != boxes.shape[:2]:
                raise ValueError(
                    f"boxes {list(boxes.shape)} and embeddings {list(embeddings.shape)} are not those of {train.pool} "
                    f"images with {self.count} proposals"
                )
        except Exception as error:
            raise DataError(f"dataset.proposals: {path} cannot be used ({reason(error)})") from error
        scales = train.targets["scales"].repeat(1, 2)[:, None]
        own = {"proposals": boxes[train.origin] * scales, "proposal_embeddings": embeddings[train.origin]}
        if self.image_batches and "pseudo_boxes" not in found:
            raise DataError(f"dataset.image_batches={self.image_batches} needs pseudo boxes, and {path} has none")
        if self.image_batches:
            own["pseudo_boxes"] = found["pseudo_boxes"].float()[train.origin] * scales
            own["pseudo_labels"] = found["pseudo_labels"].long()[train.origin]
        return own

    def seen(
        self, train: ExampleSet, test: ExampleSet, val: ExampleSet | None, mix: Mix | Alternation | None = None
    ) -> Splits:
        images = train.targets["by_image"]
        return super().seen(train, test, val, Alternation(images, self.image_batches) if images.any() else None)
