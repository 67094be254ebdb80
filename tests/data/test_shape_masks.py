"""Scenes with a class for each pixel: reproducible, with masks where the shapes are."""

import math
import os
from pathlib import Path

import pytest
import torch

from kdx.core.seed import generator
from kdx.data.sets import DataError
from kdx.data.sources.coco_masks import CocoMasks
from kdx.data.sources.shape_masks import SHAPES, ShapeMasks, draw_scene, shape_mask

REGIME = dict(fraction=1.0, fraction_seed=0, val_fraction=0.0, val_seed=0, train_subset=10)
FACTS = dict(name="scenes", num_classes=7, input_shape=(3, 24, 32), mean=(0.5,) * 3, std=(0.25,) * 3)
OWN = dict(objects=3, train_size=30, test_size=20, noise=0.1, unlabelled=0.0, seed=0)
ROOT = Path(os.environ.get("KDX_DATA", "/nowhere")) / "coco128"


def made(**changes) -> ShapeMasks:
    return ShapeMasks(**{**FACTS, **REGIME, **OWN, **changes})


def test_it_is_a_function_of_its_seed_and_training_scenes_of_no_size():
    first, again, longer, other = (made(**c).load() for c in ({}, {}, {"test_size": 40}, {"seed": 1}))
    for a, b, c in zip(first, again, other, strict=True):
        assert torch.equal(a.images, b.images) and torch.equal(a.targets["labels"], b.targets["labels"])
        assert not torch.equal(a.images, c.images)
    assert torch.equal(first[0].images, longer[0].images) and not torch.equal(first[0].images[:20], first[1].images)


AREAS = {"square": 4.0, "disc": math.pi, "triangle": 2.0, "diamond": 2.0, "ring": 0.75 * math.pi, "cross": 2.56}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_mask_has_the_area_of_its_shape_and_moves_with_it(shape: str):
    mask = shape_mask(shape, (200, 300), (100.0, 120.0), 60.0)
    assert int(mask.sum()) / 60.0**2 == pytest.approx(AREAS[shape], rel=0.02)
    moved = shape_mask(shape, (200, 300), (110.0, 150.0), 60.0)
    assert torch.equal(moved[10:, 30:], mask[:-10, :-30])


def test_where_the_mask_is_background_the_scene_is_the_smooth_texture():
    scene, labels = draw_scene(generator(0, "a scene"), (3, 40, 40), 2)
    empty, _ = draw_scene(generator(0, "a scene"), (3, 40, 40), 1)
    assert labels.unique().numel() > 1
    background = labels == 0
    coarse = torch.rand(1, 3, 4, 4, generator=generator(0, "a scene")) * 0.5 + 0.25
    texture = torch.nn.functional.interpolate(coarse, size=(40, 40), mode="bilinear")[0].permute(1, 2, 0)
    assert torch.equal(scene[background], texture[background]) and empty.shape == (40, 40, 3)
    for kind in labels.unique()[1:]:
        assert not torch.equal(scene[labels == kind], texture[labels == kind])


def test_a_share_of_training_pixels_loses_its_class():
    train, test = made(unlabelled=0.25, train_size=60).load()
    assert float((train.targets["labels"] < 0).double().mean()) == pytest.approx(0.25, abs=0.01)
    assert int(test.targets["labels"].min()) == 0


def test_splits_have_no_classes_and_a_wrong_number_is_refused():
    splits = made(val_fraction=0.2).splits()
    assert splits.spec.labels is None and splits.val is not None and len(splits.val) == 6
    with pytest.raises(DataError, match="num_classes of scenes is 7: square"):
        made(num_classes=5).load()
    train, _ = made().load()
    with pytest.raises(DataError, match="a pixel of class 6, outside 0..5"):
        made(num_classes=6).check("training", train)


def coco(**changes) -> CocoMasks:
    own = dict(root=str(ROOT), annotations="annotations/instances_train2017.json", images="train2017")
    facts = {**FACTS, "name": "coco", "num_classes": 81, "input_shape": (3, 64, 64)}
    return CocoMasks(**{**facts, **REGIME, **own, "test_fraction": 0.25, "split_seed": 0, **changes})


@pytest.mark.skipif(not ROOT.is_dir(), reason="no coco128 under KDX_DATA")
def test_masks_of_coco_are_those_of_pycocotools():
    pycoco = pytest.importorskip("pycocotools.coco")
    train, test = coco().load()
    assert (len(train), len(test)) == (96, 32)
    told = pycoco.COCO(str(ROOT / "annotations" / "instances_train2017.json"))
    ids = sorted(told.getCatIds())
    order = torch.randperm(128, generator=generator(0, "coco_masks", "split"))[:32].sort().values
    for place, i in enumerate(order[:6].tolist()):
        info = told.loadImgs(sorted(told.getImgIds())[i])[0]
        found = test.targets["labels"][place]
        ones = [a for a in told.imgToAnns[info["id"]] if not a["iscrowd"]]
        present = {ids.index(a["category_id"]) + 1 for a in ones}
        assert set(found.unique().tolist()) - {-1, 0} <= present
        covered = sum(told.annToMask(a) for a in told.imgToAnns[info["id"]]) if ones else 0
        small = torch.nn.functional.interpolate(
            torch.as_tensor(covered > 0)[None, None].float(), size=(64, 64), mode="nearest-exact"
        )
        assert torch.equal(small[0, 0] > 0, found != 0)


def test_a_missing_file_is_named():
    with pytest.raises(DataError, match=r"annotations of coco not found: looked for /nowhere"):
        coco(root="/nowhere").load()
