"""Faster R-CNN whose classifier is made of class names."""

from collections.abc import Mapping, Sequence
from typing import Unpack

import torch
from torch import Tensor, nn

from kdx.core.outputs import Outputs
from kdx.core.ranges import Positive, PositiveInt
from kdx.models.detectors.backbone import OfPyramid, Pyramid, pyramid
from kdx.models.detectors.faster_rcnn import FasterRCNN, OfRCNN, Regions, Sampling
from kdx.models.openvocab.classifier import TextClassifier
from kdx.models.openvocab.text import name_embeddings

EMBEDDINGS = "proposals.embeddings"
"""Role of the student's embeddings of the given proposals, [B, K, D]."""


class OpenVocabularyRCNN(FasterRCNN):
    """A `FasterRCNN` with class-agnostic boxes and a classifier of class names; a class's score is its own sigmoid.

    With "proposals" [B, K, 4] in the inputs it also gives `proposals.embeddings` [B, K, D] of these boxes.

    Args:
        pyramid: Backbone and pyramid.
        classifier: Maps vectors of length `width` to logits.
        own: num_classes, anchor_sizes, anchor_ratios, resolution, width and sampling, as in `FasterRCNN`.
    """

    def __init__(self, pyramid: Pyramid, classifier: TextClassifier, **own: Unpack[OfRCNN]):
        super().__init__(pyramid, class_agnostic=True, **own)
        width = own["width"]
        self.classifier = classifier
        self.regressor = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 4))

    @property
    def head(self) -> nn.Linear:
        raise AttributeError("the classifier of class names is not one linear layer")

    def forward(self, inputs: Mapping[str, Tensor]) -> Outputs:
        outputs = super().forward(inputs)
        if "proposals" not in inputs:
            return outputs
        boxes = inputs["proposals"]
        owner = torch.arange(len(boxes), device=boxes.device).repeat_interleave(boxes.shape[1])
        pooled = self.pooled(outputs.features, Regions(boxes.flatten(0, 1), owner), inputs["images"])
        assert isinstance(self.classifier, TextClassifier)
        found = self.classifier.distilled(pooled).unflatten(0, boxes.shape[:2])
        return Outputs(outputs.logits, {**outputs.features, EMBEDDINGS: found}, owner=outputs.owner)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Scores of the C classes, [N, C], each a sigmoid, from logits [N, C + 1]."""
        return logits.float()[:, :-1].sigmoid()


def open_rcnn(
    classes: Sequence[str],
    prompt: str,
    encoder: str,
    scale: Positive,
    weight_transfer: bool,
    transfer_width: PositiveInt,
    residual_width: PositiveInt,
    num_classes: PositiveInt,
    anchor_sizes: Sequence[Sequence[int]],
    anchor_ratios: Sequence[Positive],
    resolution: PositiveInt,
    width: PositiveInt,
    sampling: Sampling,
    **own: Unpack[OfPyramid],
) -> OpenVocabularyRCNN:
    """An open-vocabulary Faster R-CNN on a backbone with a pyramid.

    Args:
        classes: Names of the classes.
        prompt, encoder: How they become embeddings, see `name_embeddings`.
        scale, weight_transfer, transfer_width, residual_width: See `TextClassifier`.
        num_classes: C.
        anchor_sizes, anchor_ratios, resolution, width, sampling: See `FasterRCNN`.
        own: See `kdx.models.detectors.backbone.pyramid`.

    Raises:
        ValueError: The number of names is not C.
    """
    if len(classes) != num_classes:
        raise ValueError(f"classes has {len(classes)} names, and num_classes is {num_classes}")
    maps = pyramid(**own)
    text = name_embeddings(classes, prompt, encoder)
    return OpenVocabularyRCNN(
        maps,
        TextClassifier(text, width, scale, weight_transfer, transfer_width, residual_width),
        num_classes=num_classes,
        anchor_sizes=anchor_sizes,
        anchor_ratios=anchor_ratios,
        resolution=resolution,
        width=width,
        sampling=sampling,
    )
