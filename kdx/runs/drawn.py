"""A picture of some test images with the objects and what networks found, where the task has boxes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kdx.core.task import Task
from kdx.data.scenes import SceneSet
from kdx.data.sets import DataError, ExampleSet
from kdx.runs.folder import DETECTIONS
from kdx.tasks.boxes import Boxes

if TYPE_CHECKING:
    from PIL import Image

SHOWN, SIDE, GAP, HEAD = 4, 320, 6, 18  # images, width of each in pixels, space between them, height of the headings
SURE = 0.5  # score from which a detection is drawn
COLOURS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080", "#9a6324", "#808000")  # of classes


def draw_detections(folder: Path, task: Task, data: ExampleSet, predicted: Mapping[str, Tensor]) -> Path | None:
    """Draw the first test images that hold objects: one row for each, the truth and then each network.

    Args:
        folder: The run's directory.
        task: Its task; None is drawn for another than boxes.
        data: The test set.
        predicted: Predictions as a run keeps them, see `kdx.evals.predictions`.

    Returns:
        The path, or None if nothing was drawn.

    Raises:
        OSError: The file cannot be written.
    """
    if not isinstance(task, Boxes) or not isinstance(data, SceneSet):
        return None
    from PIL import Image, ImageDraw

    whole = (predicted["box_labels"] >= 0).any(1).nonzero().flatten()[:SHOWN].tolist()
    roles = [role for role in ("student", "teacher") if f"{role}/detections" in predicted]
    height, width = data.shape[1:]
    times = SIDE / width
    step_x, step_y = SIDE + GAP, round(height * times) + GAP
    sheet = Image.new("RGB", ((1 + len(roles)) * step_x, HEAD + max(1, len(whole)) * step_y), "white")
    pen = ImageDraw.Draw(sheet)
    for column, title in enumerate(("objects", *roles)):
        pen.text((column * step_x + GAP, 3), title, fill="black")
    for row, index in enumerate(whole):
        try:
            images, rows = data.rows(torch.tensor([index]))
        except DataError:
            return None
        plain = Image.fromarray(images[rows[0]].squeeze()).convert("RGB").resize((SIDE, step_y - GAP))
        kinds = [(predicted["boxes"][index], predicted["box_labels"][index])]
        for role in roles:
            found = predicted[f"{role}/detections"][index]
            kinds.append((found[:, :4], found[:, 5].long().masked_fill(found[:, 4] < SURE, -1)))
        for column, (boxes, labels) in enumerate(kinds):
            image = plain.copy()
            outline(image, boxes * times, labels, task.classes)
            sheet.paste(image, (column * step_x, HEAD + row * step_y))
    sheet.save(folder / DETECTIONS)
    return folder / DETECTIONS


def outline(image: "Image.Image", boxes: Tensor, labels: Tensor, names: Sequence[str]) -> None:
    """Draw boxes [N, 4], in pixels of the image, in a colour for each class; a label of -1 is padding."""
    from PIL import ImageDraw

    pen = ImageDraw.Draw(image)
    for box, label in zip(boxes.tolist(), labels.tolist(), strict=True):
        if label >= 0 and box[2] >= box[0] + 1 and box[3] >= box[1] + 1:
            colour = COLOURS[label % len(COLOURS)]
            pen.rectangle((box[0], box[1], box[2] - 1, box[3] - 1), outline=colour, width=2)
            pen.text((box[0] + 3, box[1] + 1), str(names[label])[:12] if label < len(names) else "", fill=colour)
