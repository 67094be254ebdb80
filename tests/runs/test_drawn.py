"""Pictures of detections, by their pixels."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageColor

from kdx.data.scenes import SceneSet
from kdx.data.sets import DataError
from kdx.runs.drawn import COLOURS, GAP, HEAD, SHOWN, SIDE, draw_detections, outline
from kdx.tasks.boxes import Boxes
from kdx.tasks.classes import Classes

WHITE = (255, 255, 255)
RGB = [ImageColor.getrgb(colour) for colour in COLOURS]
TASK = Boxes(("a", "b"))


def painted(*boxes: list[float], labels: list[int]) -> np.ndarray:
    image = Image.new("RGB", (40, 30), WHITE)
    outline(image, torch.tensor(boxes).reshape(-1, 4), torch.tensor(labels), ["", ""])
    return np.array(image)


def test_an_outline_is_two_pixels_wide_and_inside_its_box():
    found = painted([4.0, 6.0, 24.0, 20.0], labels=[1])
    expected = np.full((30, 40, 3), 255, dtype=np.uint8)
    expected[6:20, 4:24] = RGB[1]
    expected[8:18, 6:22] = 255
    assert (found == expected).all()


@pytest.mark.parametrize("box", [[4.0, 6.0, 4.5, 20.0], [4.0, 6.0, 24.0, 6.5], [24.0, 6.0, 4.0, 20.0]])
def test_boxes_without_a_pixel_and_padding_are_not_drawn(box):
    assert (painted(box, labels=[0]) == 255).all()
    assert (painted([4.0, 6.0, 24.0, 20.0], labels=[-1]) == 255).all()
    assert (painted([4.0, 6.0, 5.0, 20.0], labels=[0]) != 255).any()  # one pixel wide


def test_colours_repeat_after_the_last():
    assert (painted([4.0, 6.0, 24.0, 20.0], labels=[len(COLOURS) + 2])[6, 4] == RGB[2]).all()


class Grey(SceneSet):
    """Grey images of 8 x 16 pixels, whose brightness is their number."""

    shape = (3, 8, 16)  # pyright: ignore[reportAssignmentType]

    def __init__(self):
        pass

    def rows(self, index):  # in another order than asked, as `rows` may
        images = np.stack([np.full((8, 16, 3), 100 + i, dtype=np.uint8) for i in (0, *index.tolist())])
        return images, list(range(1, len(images)))


def test_a_row_for_each_image_with_objects_and_a_column_for_each_network(tmp_path):
    number, scale = 7, SIDE / 16
    boxes, labels = torch.zeros(number, 1, 4), torch.full((number, 1), -1)
    seen = [1, 3, 4, 5, 6]  # more than are shown
    boxes[seen], labels[seen] = torch.tensor([2.0, 1.0, 8.0, 5.0]), 0
    found = torch.full((number, 2, 6), -1.0)
    found[:, 0] = torch.tensor([9.0, 2.0, 15.0, 7.0, 0.5, 1.0])  # sure enough
    found[:, 1] = torch.tensor([1.0, 1.0, 7.0, 7.0, 0.49, 0.0])
    predicted = {"boxes": boxes, "box_labels": labels, "teacher/detections": found}
    path = draw_detections(tmp_path, TASK, Grey(), predicted)
    assert path is not None
    sheet = np.array(Image.open(path).convert("RGB")).astype(int)
    height = SIDE // 2 + GAP
    assert sheet.shape == (HEAD + SHOWN * height, 2 * (SIDE + GAP), 3)
    for row, index in enumerate(seen[:SHOWN]):
        for column, (x1, y1, x2, y2, colour) in enumerate([(2, 1, 8, 5, RGB[0]), (9, 2, 15, 7, RGB[1])]):
            top, left = HEAD + row * height, column * (SIDE + GAP)
            cell = sheet[top : top + SIDE // 2, left : left + SIDE]
            expected = np.full(cell.shape, 100 + index)
            box = [round(scale * value) for value in (y1, y2, x1, x2)]
            expected[box[0] : box[1], box[2] : box[3]] = colour
            expected[box[0] + 2 : box[1] - 2, box[2] + 2 : box[3] - 2] = 100 + index
            differ = (cell != expected).any(2)
            differ[box[0] : box[0] + 16, box[2] : box[2] + 16] = False  # the name of the class
            assert not differ.any(), (row, column)
            assert (sheet[top + SIDE // 2 : top + height, left : left + SIDE] == 255).all()


def test_other_tasks_draw_nothing_and_images_that_cannot_be_read_neither(tmp_path):
    class Unread(Grey):
        def rows(self, index):
            raise DataError("gone")

    predicted = {"boxes": torch.tensor([[[2.0, 1.0, 8.0, 5.0]]]), "box_labels": torch.tensor([[0]])}
    assert draw_detections(tmp_path, Classes(2), Grey(), predicted) is None
    assert draw_detections(tmp_path, TASK, Unread(), predicted) is None
    assert not list(tmp_path.iterdir())
