"""Images with boxes: readers, views whose boxes follow the pixels, and laws of the loader."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from kdx.data.loaders import EvalLoader, TrainLoader
from kdx.data.scenes import Dropped, Objects, SceneDataset, SceneSet
from kdx.data.sets import DataError
from kdx.data.sources.coco import Coco
from kdx.data.sources.scenes import SyntheticScenes, drawn, tight
from kdx.data.sources.voc import Voc
from kdx.data.views.augment import PLAIN, Augmentation
from kdx.data.views.boxes import BoxAugmentation, recoloured, scene_views

REGIME: dict[str, Any] = {
    "fraction": 1.0,
    "fraction_seed": 0,
    "val_fraction": 0.0,
    "val_seed": 0,
    "train_subset": 4,
    "mean": [0.5, 0.25, 0.75],
    "std": [0.25] * 3,
    "num_classes": 2,
}


def made(**other: Any) -> SyntheticScenes:
    own: dict[str, Any] = {
        **REGIME,
        "name": "scenes",
        "input_shape": [3, 48, 64],
        "num_classes": 2,
        "classes": ["circle", "square"],
        "train_size": 13,
        "test_size": 5,
        "objects": [0, 3],
        "sizes": [0.2, 0.4],
        "overlap": 0.1,
        "noise": 0.0,
        "seed": 0,
    }
    return SyntheticScenes(**{**own, **other})


def views(**other: Any) -> BoxAugmentation:
    own: dict[str, Any] = {
        "crop": None,
        "flip": 0.5,
        "policy": None,
        "mixing": None,
        "cycle": None,
        "scale": [0.6, 1.6],
        "brightness": 0.2,
        "contrast": 0.2,
        "saturation": 0.2,
        "min_visible": 0.25,
    }
    return BoxAugmentation(**{**own, **other})


def loader(dataset: SceneDataset, augmentation: Augmentation, batch_size: int = 5, **other: Any) -> TrainLoader:
    splits = dataset.splits()
    own: dict[str, Any] = {"data_seed": 3, "num_workers": 0, "drop_last": False, "channels_last": False}
    return TrainLoader(splits.train, splits.spec, augmentation, batch_size, **{**own, **other})


def test_made_up_boxes_are_the_smallest_around_their_shapes():
    mask = drawn("ring", 40, 50, (20.0, 30.0), 12.0, 0.3)
    box = tight(mask)
    assert box is not None
    x1, y1, x2, y2 = map(int, box)
    assert mask[y1:y2, x1:x2].sum() == mask.sum()
    for side in (mask[y1, x1:x2], mask[y2 - 1, x1:x2], mask[y1:y2, x1], mask[y1:y2, x2 - 1]):
        assert side.any()


def test_a_scene_is_the_same_in_sets_of_any_size():
    small, large = made(train_size=4).make("train", 4), made().make("train", 13)
    assert small.held is not None and large.held is not None
    assert torch.equal(small.held, large.held[:4])
    most = small.targets["boxes"].shape[1]
    assert torch.equal(small.targets["boxes"], large.targets["boxes"][:4, :most])
    assert any(bool((row < 0).all()) for row in large.targets["box_labels"])  # a scene without objects


def square_scene(box: list[int], shape: tuple[int, int] = (48, 64)) -> SceneSet:
    """One white rectangle on black, of which the box is known."""
    pixels = np.zeros((1, *shape, 3), np.uint8)
    x1, y1, x2, y2 = box
    pixels[0, y1:y2, x1:x2] = 255
    data = made().fit(None, torch.tensor([list(shape)]), [Objects.of([box], [1], [False])], "a set")
    data.held = torch.from_numpy(pixels)
    data.decodes = False
    return data


@pytest.mark.parametrize("epoch", range(12))
def test_boxes_follow_the_pixels_through_resizing_cutting_and_flipping(epoch: int):
    data = square_scene([20, 12, 44, 36])
    augmentation = views(brightness=0.0, contrast=0.0, saturation=0.0, min_visible=0.0, scale=[0.5, 2.0])
    scene = scene_views(data, torch.tensor([0]), augmentation.draw(1, 0, epoch), augmentation)
    h, w = scene.sizes[0].tolist()
    box, label = scene.targets["boxes"][0, 0], int(scene.targets["box_labels"][0, 0])
    mask = (scene.images[0, :h, :w, 0] > 127).numpy()
    around = tight(mask)
    if around is None:
        assert label == -1
        return
    assert label == 1 and (box - torch.tensor(around)).abs().max() <= 1.01
    outside = scene.images[0].clone()
    outside[:h, :w] = torch.from_numpy(data.padding)
    assert torch.equal(outside, torch.from_numpy(data.canvas(1)[0]))
    factor = scene.targets["scales"][0]
    assert factor[0] == pytest.approx(float(factor[1]), rel=0.05)


def test_colours_change_as_torchvisions_do_one_after_another():
    from torchvision.transforms.v2 import functional as reference

    g = torch.Generator().manual_seed(0)
    images = torch.randint(60, 190, (4, 9, 7, 3), generator=g, dtype=torch.uint8)
    factors = 0.8 + 0.4 * torch.rand(3, 4, generator=g, dtype=torch.float64)
    found = recoloured(images, *factors)
    for i in range(4):
        wanted = images[i].permute(2, 0, 1).float() / 255
        brightness, contrast, saturation = factors[:, i].tolist()
        wanted = reference.adjust_saturation(wanted, saturation)
        wanted = reference.adjust_contrast(wanted, contrast)
        wanted = reference.adjust_brightness(wanted, brightness)
        assert (found[i].permute(2, 0, 1).float() - 255 * wanted).abs().max() <= 0.51 + 0.1
    same = torch.ones(4, dtype=torch.float64)
    assert torch.equal(recoloured(images, same, same, same), images)


def test_an_object_that_leaves_the_window_is_padding():
    augmentation = views(scale=[3.0, 3.0], min_visible=0.9, flip=0.0)
    data = square_scene([28, 20, 36, 28])
    kinds = set()
    for epoch in range(20):
        scene = scene_views(data, torch.tensor([0]), augmentation.draw(1, 0, epoch), augmentation)
        label = int(scene.targets["box_labels"][0, 0])
        kinds.add(label)
        if label == -1:
            assert scene.targets["boxes"][0, 0].tolist() == [0.0] * 4
    assert kinds == {-1, 1}


def test_a_view_depends_on_seed_epoch_and_example_alone():
    big, small = loader(made(), views(), 5), loader(made(), views(), 2)

    def by_index(batches: Any) -> dict[int, tuple[Any, ...]]:
        found = {}
        for batch in batches:
            for i, index in enumerate(batch.index.tolist()):
                targets = tuple(t[i] for t in batch.targets.values())
                found[index] = (batch.inputs["images"][i], batch.inputs["sizes"][i], *targets)
        return found

    one, other = by_index(big.epoch(2)), by_index(small.epoch(2))
    assert one.keys() == other.keys() and len(one) == 13
    assert all(torch.equal(a, b) for index in one for a, b in zip(one[index], other[index], strict=True))
    resumed = list(small.epoch(2, 3))
    whole = list(small.epoch(2))[3:]
    assert all(torch.equal(a.inputs["images"], b.inputs["images"]) for a, b in zip(resumed, whole, strict=True))
    next_epoch = by_index(big.epoch(3))
    assert not all(torch.equal(one[i][0], next_epoch[i][0]) for i in one)


def test_a_part_of_the_source_has_the_same_views():
    whole = made().splits().train
    part, augmentation = whole.subset(torch.tensor([7, 2])), views()
    draws = augmentation.draw(whole.pool, 0, 1)
    a = scene_views(part, torch.tensor([1]), draws, augmentation)
    b = scene_views(whole, torch.tensor([2]), draws, augmentation)
    assert torch.equal(a.images, b.images) and torch.equal(a.targets["boxes"], b.targets["boxes"])


def test_padding_is_about_zero_when_normalised_and_images_keep_their_shape():
    data = made().fit(None, torch.tensor([[96, 64], [24, 64]]), [Objects.of([], [], [])] * 2, "a set")
    assert data.sizes.tolist() == [[48, 32], [24, 64]]
    data.held = torch.from_numpy(data.canvas(2))
    batch = next(iter(EvalLoader(data, made().splits().spec, 2, 0, False)))
    assert isinstance(batch.inputs, dict)
    assert batch.inputs["images"].abs().max() < 0.01


def test_other_augmentations_are_refused_in_a_sentence():
    flip = Augmentation(crop=None, flip=0.5, policy=None, mixing=None, cycle=None)
    with pytest.raises(DataError, match="moves pixels and not boxes"):
        loader(made(), flip)
    with pytest.raises(ValueError, match="crop must be null"):
        views(crop=object())
    assert len(list(loader(made(), PLAIN).epoch(0))) == 3


def test_boxes_without_an_area_are_left_out_aloud(capsys: pytest.CaptureFixture[str]):
    dropped = Dropped()
    boxes = [[0, 0, 1, 1], [5, 5, 5, 9], [60, 2, 70, 9], [64, 2, 70, 9], [-4, -4, 3, 3]]
    kept = dropped.clipped(Objects.of(boxes, [0] * 5, [False] * 5), 48, 64, "image 3")
    assert kept.boxes.tolist() == [[0, 0, 1, 1], [60, 2, 64, 9], [0, 0, 3, 3]]
    dropped.report("the set of an own test")
    assert "2 boxes without an area are left out, such as [5.0, 5.0, 5.0, 9.0] of image 3" in capsys.readouterr().err


def coco_files(folder: Path) -> None:
    (folder / "own" / "annotations").mkdir(parents=True)
    (folder / "own" / "images").mkdir()
    modes = ["RGB", "L", "I;16", "RGB"]
    for i, mode in enumerate(modes):
        array = np.full((30 + 10 * i, 40, 3), 60 * i, np.uint8)
        image = Image.fromarray(
            array if mode == "RGB" else array[..., 0].astype(np.uint16) * 257 if "16" in mode else array[..., 0]
        )
        image.save(folder / "own" / "images" / f"{i}.png")
    content = {
        "images": [{"id": 10 - i, "file_name": f"{i}.png", "height": 30 + 10 * i, "width": 40} for i in range(4)],
        "categories": [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}, {"id": 1, "name": "tree"}],
        "annotations": [
            {"id": 1, "image_id": 10, "category_id": 3, "bbox": [1, 2, 10, 20], "area": 150.0, "iscrowd": 0},
            {"id": 2, "image_id": 10, "category_id": 1, "bbox": [0, 0, 5, 5], "area": 25.0, "iscrowd": 0},
            {"id": 3, "image_id": 8, "category_id": 7, "bbox": [0, 0, 1, 1], "area": 1.0, "iscrowd": 1},
        ],
    }
    (folder / "own" / "annotations" / "a.json").write_text(json.dumps(content))


def coco(folder: Path, **other: Any) -> Coco:
    own: dict[str, Any] = {
        **REGIME,
        "name": "own",
        "input_shape": [3, 60, 60],
        "classes": ["cat", "dog"],
        "root": str(folder),
        "folder": "own",
        "train_file": "annotations/a.json",
        "test_file": "annotations/a.json",
        "train_images": "images",
        "test_images": "images",
        "test_share": 0.5,
        "split_seed": 0,
        "in_memory": False,
    }
    return Coco(**{**own, **other})


def test_cocos_boxes_classes_and_crowds_are_read_for_images_of_any_mode(tmp_path: Path):
    coco_files(tmp_path)
    data = coco(tmp_path)._part("annotations/a.json", "images", "a set")
    assert data.sizes.tolist() == [[60, 40], [60, 48], [60, 60], [45, 60]]  # in the order of ids
    images, _ = data.rows(torch.arange(4))
    assert images[:, 5, 5].tolist() == [[180] * 3, [120] * 3, [60] * 3, [0] * 3]
    assert data.targets["box_labels"].tolist() == [[-1], [0], [-1], [1]]
    assert data.targets["crowd"].tolist() == [[False], [True], [False], [False]]
    assert data.targets["areas"][3].item() == 150
    torch.testing.assert_close(data.targets["boxes"][3, 0], torch.tensor([1.5, 3.0, 16.5, 33.0]))
    held = data.in_memory()
    assert torch.equal(torch.from_numpy(images), held.held if held.held is not None else torch.zeros(0))


def test_a_set_without_its_own_split_is_split_by_a_seed_of_its_own(tmp_path: Path):
    coco_files(tmp_path)
    train, test = coco(tmp_path).load()
    assert len(train) == len(test) == 2 and not set(train.origin.tolist()) & set(test.origin.tolist())
    assert torch.equal(coco(tmp_path).load()[0].origin, train.origin)


def test_errors_of_coco_files_name_the_file(tmp_path: Path):
    with pytest.raises(DataError, match="a.json"):
        coco(tmp_path).load()
    coco_files(tmp_path)
    with pytest.raises(DataError, match="no category 'bird'"):
        coco(tmp_path, classes=["bird", "dog"]).load()
    content = json.loads((tmp_path / "own/annotations/a.json").read_text())
    content["images"][0]["height"] = 300
    (tmp_path / "own/annotations/a.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"0\.png has 40 x 30 pixels, its annotation another shape"):
        coco(tmp_path, in_memory=True).load()
    (tmp_path / "own/annotations/a.json").write_text("{}")
    with pytest.raises(DataError, match="no annotation file in COCO's format"):
        coco(tmp_path).load()


VOC_FILE = """<annotation><filename>{name}.jpg</filename><size><width>40</width><height>20</height></size>
<object><name>dog</name><difficult>{difficult}</difficult>
<bndbox><xmin>5</xmin><ymin>1</ymin><xmax>{right}</xmax><ymax>20</ymax></bndbox></object>
<object><name>tree</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></object></annotation>"""


@pytest.mark.parametrize("first_pixel", [0, 1])
def test_pascals_boxes_are_read(tmp_path: Path, first_pixel: Any, capsys: pytest.CaptureFixture[str]):
    base = tmp_path / "own"
    for part in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (base / part).mkdir(parents=True)
    for name, difficult, right in (("a", 0, 30), ("b", 1, 5)):
        (base / "Annotations" / f"{name}.xml").write_text(VOC_FILE.format(name=name, difficult=difficult, right=right))
        Image.new("RGB", (40, 20)).save(base / "JPEGImages" / f"{name}.jpg")
    (base / "ImageSets/Main/train.txt").write_text("a\n")
    (base / "ImageSets/Main/test.txt").write_text("b 1\na -1\n")
    own: dict[str, Any] = {
        **REGIME,
        "name": f"own {first_pixel}",
        "input_shape": [3, 20, 40],
        "classes": ["cat", "dog"],
        "root": str(tmp_path),
        "folder": "own",
        "train_list": "train",
        "test_list": "test",
        "first_pixel": first_pixel,
        "in_memory": True,
    }
    train, test = Voc(**own).load()
    low = 5 - first_pixel
    assert train.targets["boxes"].tolist() == [[[low, 1 - first_pixel, 30, 20]]]
    said = capsys.readouterr().err
    assert "1 objects of other classes than dataset.classes are left out" in said
    if first_pixel:  # a box of one pixel
        assert test.targets["boxes"][0].tolist() == [[4, 0, 5, 20]] and bool(test.targets["crowd"][0, 0])
    else:
        assert test.targets["box_labels"].tolist() == [[-1], [1]] and "1 boxes without an area" in said
    with pytest.raises(DataError, match="is the training list"):
        Voc(**{**own, "test_list": "train"}).load()
    (base / "Annotations/a.xml").write_text("<annotation>")
    with pytest.raises(DataError, match=r"a\.xml is no annotation of Pascal VOC"):
        Voc(**own).load()
