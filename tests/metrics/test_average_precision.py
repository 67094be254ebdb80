"""AP of detections against pycocotools, against a loop, and its laws."""

import contextlib
import io
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from kdx.metrics.detection import AREAS, AveragePrecision, DetectionFidelity, overlaps

CLASSES = ("a", "b", "c")


def random_set(seed: int, images: int = 12) -> tuple[Tensor, Tensor]:
    """Detections [B, D, 6] and truth [B, N, 8] with ties of scores and overlaps, crowds, and empty images."""
    g = np.random.default_rng(seed)
    found, real = np.zeros((images, 9, 6)), np.zeros((images, 6, 8))
    found[..., 5], real[..., 4] = -1, -1
    real[..., 7] = np.arange(images)[:, None]
    for i in range(images):
        # some without an object; every second of these without detections, too
        objects = 0 if i % 5 == 4 else int(g.integers(1, 7))
        for n in range(objects):
            low, size = g.integers(0, 100, 2), g.choice([4, 20, 40, 70, 120, 200], 2)
            box = [*low, *(low + size)]
            real[i, n] = [*box, g.integers(3), g.random() < 0.2, size.prod() * g.choice([1.0, 0.8]), i]
        for d in range(int(g.integers(0, 10)) if i % 10 != 4 else 0):
            if objects and g.random() < 0.7:
                box = real[i, g.integers(objects), :4] + g.integers(-3, 4, 4)
                box[2:] = np.maximum(box[2:], box[:2] + 1)
                label = real[i, g.integers(objects), 4]
            else:
                low = g.integers(0, 100, 2)
                box, label = np.array([*low, *(low + g.integers(1, 90, 2))]), g.integers(3)
            found[i, d] = [*box, g.choice([0.2, 0.5, 0.5, 0.7, 0.9, 1.0]), label]
    return torch.from_numpy(found), torch.from_numpy(real)


def measured(found: Tensor, real: Tensor, size: int = 4) -> dict[str, float]:
    metric = AveragePrecision(CLASSES)
    for a, b in zip(found.split(size), real.split(size), strict=True):
        metric.update(a, b)
    return metric.compute()


def by_pycocotools(found: Tensor, real: Tensor) -> dict[str, float]:
    coco_module, evaluation = pytest.importorskip("pycocotools.coco"), pytest.importorskip("pycocotools.cocoeval")
    numbers = real[:, 0, 7].long().tolist()
    annotations = [
        {
            "id": 0,
            "image_id": int(row[7]),
            "category_id": int(row[4]),
            "bbox": [row[0], row[1], row[2] - row[0], row[3] - row[1]],
            "iscrowd": int(row[5]),
            "area": row[6],
        }
        for image in real.tolist()
        for row in image
        if row[4] >= 0
    ]
    for number, annotation in enumerate(annotations, 1):
        annotation["id"] = number
    results = [
        {
            "image_id": number,
            "category_id": int(row[5]),
            "score": row[4],
            "bbox": [row[0], row[1], row[2] - row[0], row[3] - row[1]],
        }
        for number, image in zip(numbers, found.tolist(), strict=True)
        for row in image
        if row[5] >= 0
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = coco_module.COCO()
        truth.dataset = {
            "info": {},
            "images": [{"id": n} for n in numbers],
            "annotations": annotations,
            "categories": [{"id": c} for c in range(len(CLASSES))],
        }
        truth.createIndex()
        run = evaluation.COCOeval(truth, truth.loadRes(results), "bbox")
        run.evaluate()
        run.accumulate()
    precision = run.eval["precision"][..., 2]  # thresholds, recalls, classes, areas; 100 detections

    def mean(values: np.ndarray) -> float:
        return float(values[values > -1].mean()) if (values > -1).any() else math.nan

    every = {"ap": precision[..., 0], "ap50": precision[:1, ..., 0], "ap75": precision[5:6, ..., 0]}
    every |= {f"ap{suffix}": precision[..., i] for i, suffix in enumerate(AREAS) if suffix}
    every |= {f"ap_{name}": precision[:, :, c, 0] for c, name in enumerate(CLASSES)}
    return {name: mean(values) for name, values in every.items()}


@pytest.mark.parametrize("seed", range(6))
def test_every_number_equals_that_of_pycocotools(seed: int):
    found, real = random_set(seed)
    ours, theirs = measured(found, real), by_pycocotools(found, real)
    assert len(ours) >= 6
    for name, value in theirs.items():
        assert (math.isnan(value) and name not in ours) or ours[name] == pytest.approx(value, abs=1e-12)


def test_more_than_a_hundred_detections_of_a_class_are_cut_as_in_pycocotools():
    g = torch.Generator().manual_seed(1)
    box = torch.rand(2, 150, 4, generator=g, dtype=torch.float64) * 40
    box[..., 2:] += box[..., :2] + 1
    found = torch.cat([box, torch.rand(2, 150, 1, generator=g).round(decimals=1).double(), torch.zeros(2, 150, 1)], 2)
    rest = torch.tensor([0.0, 0.0, 400.0, 0.0]).expand(2, 20, 4).clone()
    rest[1, :, 3] = 1
    real = torch.cat([box[:, ::8][:, :19], box[:, 149:]], 1)
    real = torch.cat([real, rest.double()], 2)
    ours, theirs = measured(found, real), by_pycocotools(found, real)
    assert ours["ap"] == pytest.approx(theirs["ap"], abs=1e-12) and 0 < ours["ap"] < 1


def average_precision_by_loop(hits: list[bool], positives: int) -> float:
    """The definition: at each of 101 recalls the best precision among all prefixes that reach it."""
    points = [(sum(hits[: n + 1]) / positives, sum(hits[: n + 1]) / (n + 1)) for n in range(len(hits))]
    best = [max((p for r, p in points if r >= i / 100 - 1e-12), default=0.0) for i in range(101)]
    return sum(best) / 101


def test_one_class_equals_a_loop_over_prefixes():
    g = np.random.default_rng(4)
    for _ in range(20):
        hits = (g.random(8) < 0.6).tolist()
        positives = sum(hits) + int(g.integers(1, 3))
        # every hit is an object of its own; the other detections lie elsewhere
        real = torch.zeros(1, positives, 8, dtype=torch.float64)
        found = torch.zeros(1, len(hits), 6, dtype=torch.float64)
        for n in range(positives):
            real[0, n, :4] = torch.tensor([20.0 * n, 0.0, 20.0 * n + 10, 10.0])
            real[0, n, 6] = 100
        free = iter(range(positives))
        for d, hit in enumerate(hits):
            place = 20.0 * next(free) if hit else 20.0 * d
            low = 0.0 if hit else 500.0
            found[0, d] = torch.tensor([place, low, place + 10, low + 10, 1 - 0.1 * d, 0.0])
        assert measured(found, real)["ap50"] == pytest.approx(average_precision_by_loop(hits, positives), abs=1e-12)


@pytest.mark.parametrize("size", [1, 5, 12])
def test_batches_of_any_size_and_order_and_merged_halves_give_the_same(size: int):
    found, real = random_set(3)
    whole = measured(found, real, 12)
    assert measured(found, real, size) == whole
    order = torch.randperm(len(found), generator=torch.Generator().manual_seed(0))
    assert measured(found[order], real[order], size) == whole
    halves = AveragePrecision(CLASSES), AveragePrecision(CLASSES)
    for i, (a, b) in enumerate(zip(found.split(1), real.split(1), strict=True)):
        halves[i % 2].update(a, b)
    halves[0].merge(halves[1].sums)
    assert halves[0].compute() == whole


def test_permuting_the_objects_of_an_image_changes_nothing():
    found, real = random_set(5)
    order = torch.randperm(real.shape[1], generator=torch.Generator().manual_seed(0))
    assert measured(found, real[:, order]) == pytest.approx(measured(found, real), abs=1e-12)


def test_the_truth_as_detections_is_perfect_and_nothing_found_is_zero():
    _, real = random_set(2)
    real[..., 5] = 0
    best = torch.cat([real[..., :4], torch.ones_like(real[..., :1]), real[..., 4:5]], -1)
    assert all(value == pytest.approx(1.0) for name, value in measured(best, real).items() if name[2:] not in AREAS)
    none = best.clone()
    none[..., 5] = -1
    assert set(measured(none, real).values()) == {0.0}


def test_without_any_object_ap_is_undefined():
    found, real = random_set(2)
    real[..., 4] = -1
    assert math.isnan(measured(found, real)["ap"]) and measured(found, real).keys() == {"ap"}


def test_a_crowd_is_covered_by_any_share_of_it_and_ignored():
    crowd = torch.tensor([[[0.0, 0.0, 100.0, 100.0, 0.0, 1.0, 1e4, 0.0], [200, 0, 240, 40, 0, 0, 1600, 0]]]).double()
    right, inside, beside = [200.0, 0, 240, 40, 0.5, 0], [10.0, 10, 20, 20, 0.9, 0], [300.0, 0, 310, 10, 0.9, 0]
    assert measured(torch.tensor([[right, inside]]).double(), crowd)["ap"] == pytest.approx(1.0)
    assert measured(torch.tensor([[right, beside]]).double(), crowd)["ap"] == pytest.approx(0.5)


def test_overlaps_equal_a_loop_over_pixels():
    g = np.random.default_rng(0)
    boxes, others = (np.sort(g.integers(0, 12, (5, 2, 2)), 1).reshape(5, 4).astype(float) for _ in range(2))

    def pixels(box: np.ndarray) -> set[tuple[int, int]]:
        return {(x, y) for x in range(int(box[0]), int(box[2])) for y in range(int(box[1]), int(box[3]))}

    for i, a in enumerate(boxes):
        for j, b in enumerate(others):
            one, two = pixels(a), pixels(b)
            for crowd in (False, True):
                union = len(one) if crowd else len(one | two)
                wanted = len(one & two) / union if union else 0.0
                assert overlaps(boxes, others, np.full(5, crowd))[i, j] == pytest.approx(wanted)


def test_a_student_that_misses_the_teachers_object_is_less_faithful():
    found, _ = random_set(1)
    found[..., 4] = found[..., 4].clamp(min=0.5)
    follows, misses = DetectionFidelity(3), DetectionFidelity(3)
    follows.update(found, found)
    less = found.clone()
    less[:6, :, 5] = -1
    misses.update(less, found)
    assert follows.compute()["ap50_to_teacher"] == pytest.approx(1.0)
    assert misses.compute()["ap50_to_teacher"] < 0.9
