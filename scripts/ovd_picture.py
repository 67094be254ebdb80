"""Draw one test scene of an open-vocabulary study: classes by the vision-language model, and boxes of two detectors.

    python scripts/ovd_picture.py BASE_RUN DISTILLED_RUN PICTURE.png [--scene 3]

Green boxes have the class of the object that they lie on, red ones another; thick ones are novel classes. The scene is
the first with a novel object where none is given.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torchvision.ops import box_iou

from kdx.config.past import read_config
from kdx.config.schema import run_config
from kdx.data.sources.open_scenes import LOOKS, OpenScenes
from kdx.models.openvocab.detector import OpenVocabularyRCNN
from kdx.models.openvocab.vision import CropNet, MiniVision
from kdx.runs.build import build_student, make
from kdx.runs.folder import CONFIG, STUDENT

ZOOM, MARGIN, GAP = 4, 24, 8
RIGHT, WRONG = (0, 220, 80), (255, 70, 70)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", type=Path)
    parser.add_argument("distilled", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--scene", type=int, default=None)
    given = parser.parse_args()
    configs = [run_config(read_config(run / CONFIG)) for run in (given.base, given.distilled)]
    data: Any = make(configs[0].dataset)
    assert isinstance(data, OpenScenes)
    _, test = data.load()
    novel = torch.isin(test.targets["box_labels"], torch.tensor(list(data.novel)))
    scene = int(novel.any(1).nonzero()[0]) if given.scene is None else given.scene
    assert test.held is not None
    image, boxes, labels = test.held[scene], test.targets["boxes"][scene], test.targets["box_labels"][scene]
    real = labels >= 0
    truth = boxes[real], labels[real]
    teacher = taught(data, image, truth[0])
    answers = [("teacher, on true boxes", *teacher)]
    for title, config, run in zip(
        ("base detector", "distilled detector"), configs, (given.base, given.distilled), strict=True
    ):
        net = build_student(config, run / STUDENT).eval()
        assert isinstance(net, OpenVocabularyRCNN)
        answers.append((title, *detected(net, image, data)))
    panels = [panel(image, title, found, kinds, truth, list(data.novel)) for title, found, kinds in answers]
    step = panels[0].width + GAP
    whole = Image.new("RGB", (len(panels) * step - GAP, panels[0].height + MARGIN), "white")
    for i, one in enumerate(panels):
        whole.paste(one, (i * step, 0))
    legend(ImageDraw.Draw(whole), panels[0].height + 4)
    given.picture.parent.mkdir(parents=True, exist_ok=True)
    whole.save(given.picture, optimize=True)
    print(f"{given.picture}: scene {scene} with {', '.join(LOOKS[k] for k in truth[1].tolist())}")


def taught(data: OpenScenes, image: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """The true boxes, and the class that the vision-language model gives each."""
    from kdx.data.sources.open_scenes import drawn

    vision = data.vision
    assert isinstance(vision, MiniVision)
    internet = drawn(data, "internet", data.vision_scenes, ())
    assert internet.held is not None
    targets = internet.targets["boxes"], internet.targets["box_labels"]
    model = vision.learned(data.task.classes, internet.held, *targets)
    assert isinstance(model, CropNet)
    return boxes, (model.embed(image[None], boxes[None])[0] @ model.text.T).argmax(1)


@torch.no_grad()
def detected(net: OpenVocabularyRCNN, image: Tensor, data: OpenScenes) -> tuple[Tensor, Tensor]:
    """Boxes and classes of the detections with a score of at least 0.5."""
    mean, std = (torch.tensor(list(t))[:, None, None] for t in (data.mean, data.std))
    pixels = ((image.permute(2, 0, 1) / 255 - mean) / std)[None]
    found = net({"images": pixels, "sizes": torch.tensor([list(pixels.shape[2:])])}).features["detections"][0]
    found = found[found[:, 4] >= 0.5]
    return found[:, :4], found[:, 5].long()


def panel(
    image: Tensor, title: str, found: Tensor, kinds: Tensor, truth: tuple[Tensor, Tensor], novel: list[int]
) -> Image.Image:
    """The scene with boxes and the looks of their classes."""
    h, w = image.shape[:2]
    out = Image.new("RGB", (w * ZOOM, h * ZOOM + MARGIN), "white")
    out.paste(Image.fromarray(image.numpy()).resize((w * ZOOM, h * ZOOM), Image.Resampling.NEAREST), (0, MARGIN))
    draw, font = ImageDraw.Draw(out), ImageFont.load_default(size=14)
    draw.text((4, 3), title, fill="black", font=font)
    for box, kind in zip(found, kinds.tolist(), strict=True):
        overlap = box_iou(box[None], truth[0])[0]
        right = bool(overlap.max() >= 0.5) and int(truth[1][overlap.argmax()]) == kind
        colour = RIGHT if right else WRONG
        x1, y1, x2, y2 = ((box * ZOOM) + torch.tensor([0, MARGIN, 0, MARGIN])).tolist()
        draw.rectangle((x1, y1, x2, y2), outline=colour, width=5 if kind in novel else 2)
        text = LOOKS[kind].replace("_", " ")
        # above the box, or inside where there is no room
        left, top, right_end, bottom = draw.textbbox((0, 0), text, font=font)
        high = bottom - top + 6
        y = y1 - high if y1 - high >= MARGIN else y1
        x = min(x1, w * ZOOM - (right_end - left) - 6)
        draw.rectangle((x, y, x + right_end - left + 6, y + high), fill=(0, 0, 0))
        draw.text((x + 3, y + 2 - top), text, fill=colour, font=font)
    return out


def legend(draw: ImageDraw.ImageDraw, y: int) -> None:
    """The legend of the colours and the widths of the lines."""
    x, font = 4, ImageFont.load_default(size=14)
    for text, colour, width in (
        ("right class", RIGHT, 2),
        ("wrong class", WRONG, 2),
        ("thick: a novel class, without boxes in training", "black", 5),
    ):
        draw.line((x, y + 9, x + 24, y + 9), fill=colour, width=width)
        draw.text((x + 30, y), text, fill="black", font=font)
        x += 60 + int(draw.textlength(text, font=font))


if __name__ == "__main__":
    main()
