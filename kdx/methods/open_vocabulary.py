"""Open-vocabulary detectors: batches of scenes with boxes, and of scenes that have labels alone."""

from collections.abc import Mapping
from typing import Unpack

import torch
from torch import Tensor

from kdx.core.batch import Batch
from kdx.core.errors import UserError
from kdx.core.outputs import Outputs, Step
from kdx.core.schedule import Progress
from kdx.core.tree import Tree
from kdx.losses.detection.own import DetectorTerm
from kdx.losses.openvocab.classes import SeenClasses
from kdx.losses.openvocab.region_distillation import EmbeddingL1
from kdx.methods.alone import Untaught
from kdx.methods.detect import Detect, learning_inputs
from kdx.methods.term_sum import temperature_report
from kdx.tasks.open_boxes import BY_IMAGE, OpenBoxes


class OpenVocabulary(Detect):
    """A detector that learns base classes from boxes, proposals' embeddings, and all classes from pseudo boxes.

    On scenes with boxes, the terms of boxes are computed; on image-labelled scenes, the regions are the pseudo boxes,
    and the terms of boxes are 0. Terms on proposals are computed on both. A logged mean of a term counts the batches
    on which it is 0.

    Args:
        own: student, spec, terms, weights and temperature, as in `Alone`; the terms are `DetectorTerm`s.

    Raises:
        UserError: The data set has no novel classes, or lacks the proposals or image labels that a term reads; or a
            term is not one of a detector.

    References:
        Rasheed et al., "Bridging the Gap between Object and Image-level Representations for Open-Vocabulary
        Detection", 2022. https://arxiv.org/abs/2207.03482
    """

    def __init__(self, **own: Unpack[Untaught]):
        task = own["spec"].task
        if not isinstance(task, OpenBoxes):
            raise UserError(
                "an open-vocabulary method needs a data set with novel classes, such as dataset=open_scenes"
            )
        super().__init__(**own)
        terms: dict[str, DetectorTerm] = {}
        for name, term in own["terms"].items():
            if not isinstance(term, DetectorTerm):
                raise UserError(f"method.terms.{name}: {type(term).__name__} is no term of a detector")
            terms[name] = term
            if isinstance(term, SeenClasses):
                term.leave_out(task.novel)
        self._on_boxes = [name for name, term in terms.items() if term.on_boxes]
        self._on_images = [name for name, term in terms.items() if term.on_images]
        distilling = [name for name, term in terms.items() if isinstance(term, EmbeddingL1)]
        self._distils = bool(distilling)
        if distilling and not task.count:
            raise UserError(f"method.terms.{distilling[0]} compares proposals, and this data set has none")
        alone = [name for name in self._on_images if name not in self._on_boxes]
        if alone and not task.has_images:
            raise UserError(
                f"method.terms.{alone[0]} reads image-labelled scenes, and this data set has none; "
                "dataset.image_size or dataset.image_batches adds them"
            )
        if task.has_images and not self._on_images:
            raise UserError("no term of this method reads image-labelled scenes; set dataset.image_size=0")

    def forward(self, batch: Batch, progress: Progress) -> Step:
        by_image = bool(batch.target(BY_IMAGE)[0])
        inputs = pseudo_inputs(batch) if by_image else learning_inputs(batch, progress, self.salt)
        if self._distils:
            inputs["proposals"] = batch.target("proposals")
        student: Outputs = self.student(inputs).float()
        names = self._on_images if by_image else self._on_boxes
        found = self.values(student, student.detach(), batch, progress, names)
        none = torch.zeros((), device=batch.device)
        terms: dict[str, Tensor] = {name: found.get(name, none) for name in self.terms}
        return Step(terms, temperature_report(self.temperatures, progress), student.detach())


def pseudo_inputs(batch: Batch) -> dict[str, Tree]:
    """A batch's inputs with its pseudo boxes as the regions. Raises UserError if the inputs are no mapping."""
    if not isinstance(batch.inputs, Mapping):
        raise UserError("a detector reads images with their sizes, and this data set gives single tensors")
    boxes = batch.target("pseudo_boxes")
    owner = torch.arange(len(boxes), device=boxes.device).repeat_interleave(boxes.shape[1])
    return {**batch.inputs, "regions": boxes.flatten(0, 1), "owner": owner}
