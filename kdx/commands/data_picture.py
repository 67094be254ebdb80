"""A picture of samples: one row for each class, with its name; boxes are drawn where there are some."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from kdx.core.seed import generator
from kdx.data.sets import DataError, ImageSet
from kdx.runs.drawn import outline

COLUMNS, ROWS = 10, 25  # images of a class, and classes, that are drawn at most
SIDE = 64  # smallest side of an image in the picture, in pixels
LABEL, GAP = 160, 4  # width of the names' column and space between images, in pixels


def draw(data: ImageSet, names: Sequence[str], path: Path) -> Path:
    """Draw random images of each class as networks see them before augmentation; returns the path.

    Args:
        data: The images; without classes, rows are random.
        names: Name of each class.
        path: Of the PNG file.

    Raises:
        OSError: The file cannot be written.
    """
    from PIL import Image, ImageDraw

    rows = _chosen(data)
    _, h, w = data.shape
    times = max(1, -(-SIDE // min(h, w)))  # whole, so that pixels stay sharp
    step_x, step_y = w * times + GAP, h * times + GAP
    sheet = Image.new("RGB", (LABEL + COLUMNS * step_x, max(1, len(rows)) * step_y), "white")
    pen = ImageDraw.Draw(sheet)
    for number, (label, indices) in enumerate(rows):
        name = str(names[label]) if 0 <= label < len(names) else ""
        pen.text((GAP, number * step_y + step_y // 2 - 6), name[:24], fill="black")
        for column, index in enumerate(indices):
            pixels = _shown(data, index)
            if pixels is not None:
                image = Image.fromarray(pixels).resize((w * times, h * times), Image.Resampling.NEAREST)
                if "boxes" in data.targets:
                    boxes, labels = data.targets["boxes"][index], data.targets["box_labels"][index]
                    outline(image, boxes * times, labels, names)
                sheet.paste(image, (LABEL + column * step_x, number * step_y))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)
    return path


def _chosen(data: ImageSet) -> list[tuple[int, list[int]]]:
    """Class and positions of each row; class -1 for a set without classes."""
    order = torch.randperm(len(data), generator=generator(0, "samples"))
    if not data.has_classes:
        return [(-1, part.tolist()) for part in order.split(COLUMNS)[:5]]
    labels = data.labels[order]
    present = labels.unique().tolist()
    # spread over all classes if there are too many
    shown = [present[i * len(present) // min(ROWS, len(present))] for i in range(min(ROWS, len(present)))]
    return [(label, order[labels == label][:COLUMNS].tolist()) for label in shown]


def _shown(data: ImageSet, index: int) -> np.ndarray | None:
    """An image as bytes [H, W, 3]; None if it cannot be read."""
    try:
        source, rows = data.rows(torch.tensor([index]))
    except DataError:
        return None
    pixels = source[rows][0].astype(np.float64)
    if data.dtype == np.uint8:
        pixels = pixels * (255 / data.scale)
    else:  # floats of any scale
        low, high = pixels.min(), pixels.max()
        pixels = (pixels - low) * (255 / max(high - low, 1e-12))
    grey = pixels.shape[2] != 3
    return np.rint(pixels[..., :1].repeat(3, 2) if grey else pixels).clip(0, 255).astype(np.uint8)
