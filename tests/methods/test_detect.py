"""Detectors that learn with and without a teacher."""

from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import ANCHORS, BOXES
from crowd import trained_by
from safetensors.torch import load_file
from torch import Tensor
from traces import record

from kdx.config.schema import RunConfig
from kdx.core.batch import Batch
from kdx.core.errors import UserError
from kdx.core.outputs import Shapes
from kdx.core.schedule import Progress
from kdx.core.spec import DataSpec, Scenes
from kdx.losses.detection.fgd import FGD, cell_weights
from kdx.losses.detection.one_stage import AnchorBoxes, AnchorClasses
from kdx.losses.features.pearson import pearson_distance
from kdx.methods.detect import DetectWithTeacher, learning_inputs
from kdx.models.detectors.backbone import Plain, Pyramid
from kdx.models.detectors.retinanet import Matching, RetinaNet
from kdx.models.teachers.frozen import Frozen
from kdx.runs.run import name, run
from kdx.tasks.boxes import Boxes

WEIGHTS = f"teacher.checkpoint='{__file__}'"  # never read: `built` gives teachers weights of its own
OWN = {"objectness", "proposal_boxes", "classes", "boxes"}


@pytest.mark.parametrize("stem", ["detect_kd", "detect_mse", "detect_cwd", "detect_pkd", "detect_fgd"])
def test_a_student_that_equals_its_teacher_has_no_distillation_loss(tiny, built, stem: str):
    trainer = built(tiny(WEIGHTS, f"method={stem}", data=BOXES))
    method = trainer.method
    assert isinstance(method, DetectWithTeacher)
    batch = next(trainer.loader.epoch(0))
    progress = Progress(0, 8, 1.0)
    different = {k: v for k, v in method.eval()(batch, progress).terms.items() if k not in OWN}
    method.teacher = Frozen(deepcopy(method.student), None, None)
    # adapters of equal widths are the identity
    same = {k: v for k, v in method.eval()(batch, progress).terms.items() if k not in OWN}
    assert different and all(v > 1e-4 for v in different.values())
    assert all(abs(float(v)) < 1e-5 for v in same.values())


def test_the_teacher_answers_for_the_students_regions(tiny, built):
    method = built(tiny(WEIGHTS, "method=detect_kd", data=BOXES)).method
    asked: list[dict[str, Tensor]] = []
    method.teacher.net.register_forward_pre_hook(lambda _, given: asked.append(given[0]))
    batch = next(built(tiny(WEIGHTS, "method=detect_kd", data=BOXES), "other").loader.epoch(0))
    step = method(batch, Progress(3, 8, 1.0))
    assert step.outputs is not None and step.outputs.owner is not None
    assert torch.equal(asked[0]["regions"], step.outputs.features["regions"]) and "boxes" not in asked[0]
    assert torch.equal(asked[0]["owner"], step.outputs.owner)


def test_draws_depend_on_step_example_and_run(tiny, built):
    batch = next(built(tiny(WEIGHTS, "method=detect", data=BOXES)).loader.epoch(0))
    salt = torch.tensor(12345)

    def draws(step: int, run: Tensor) -> Tensor:
        found = learning_inputs(batch, Progress(step, 8, 1.0), run)["draws"]
        assert isinstance(found, Tensor)
        return found

    assert torch.equal(draws(1, salt), draws(1, salt)) and draws(1, salt).unique().numel() == len(batch)
    assert not set(draws(1, salt).tolist()) & set(draws(2, salt).tolist())
    assert not set(draws(1, salt).tolist()) & set(draws(1, salt + 1).tolist())
    with pytest.raises(UserError, match="images with their sizes"):
        learning_inputs(replace(batch, inputs=torch.zeros(2, 3)), Progress(0, 8, 1.0), salt)


def test_permuting_the_objects_of_images_changes_no_term(tiny, built):
    trainer = built(tiny(WEIGHTS, "method=detect_fgd", data=BOXES))
    batch = next(trainer.loader.epoch(0))
    order = torch.arange(batch.target("boxes").shape[1]).flip(0)
    names = ("boxes", "box_labels", "crowd", "areas")
    other = batch.with_targets(**{k: batch.target(k)[:, order] for k in names})
    # all regions are kept, so that the order of the objects appended to them is no choice
    trainer.method.student.sampling = replace(trainer.method.student.sampling, region_batch=1000, region_share=0.999)
    a, b = (trainer.method.eval()(x, Progress(0, 8, 1.0)).terms for x in (batch, other))
    for key, value in a.items():
        torch.testing.assert_close(value, b[key])


def test_a_memo_and_an_ensemble_are_refused_before_anything_loads(tiny):
    with pytest.raises(Exception, match="stores one vector for each view"):
        memo = ("teacher.memo=true", "augmentation=none", "trainer.batch_size=33")
        tiny(WEIGHTS, "method=detect_kd", *memo, data=BOXES)
    with pytest.raises(Exception, match="an ensemble as teacher needs a task with classes"):
        tiny("method=detect_kd", "teacher.seeds=[0,1]", data=BOXES)


def test_a_method_of_classes_is_refused_for_boxes_and_terms_on_regions_fit(tiny):
    with pytest.raises(Exception, match="method=kd does not fit dataset=scenes, which has boxes"):
        tiny(WEIGHTS, "method=kd", data=BOXES)
    assert tiny(WEIGHTS, "method=detect_kd", data=BOXES).method["terms"]["kd"]["term"]["_target_"].endswith("KD")


def folder(config: RunConfig) -> Path:
    return Path(config.paths.runs) / name(config)


@pytest.mark.parametrize("data", [BOXES, ANCHORS], ids=["two stages", "one stage"])
def test_a_run_trains_measures_exports_and_keeps_its_detections(tiny, data: tuple[str, ...]):
    stem = "detect_kd" if data is BOXES else "detect_one_stage"
    result = run(tiny(f"method={stem}", "evals.test.every=null", data=data))
    assert result.data["task"]["kind"] == "boxes" and "test/ap50" in result.data["metrics"]["last"]
    kept = load_file(result.folder / "predictions.safetensors")
    assert kept["student/detections"].shape == (25, 5, 6) and kept["boxes"].shape[0] == 25
    assert (data is BOXES) == ("fidelity/test/ap50_to_teacher" in result.data["metrics"]["last"])


@pytest.mark.slow
@pytest.mark.parametrize("stem", ["detect_kd", "detect_fgd"])
def test_two_processes_leave_the_trace_of_one(tiny, stem: str):
    config = tiny(f"method={stem}", "trainer.batch_size=7", "trainer.log_steps=1", data=BOXES)
    run(config)
    there = replace(config, paths=replace(config.paths, runs=str(Path(config.paths.runs).parent / "two")))
    assert trained_by(2, [there], None) == [0, 0]
    ours, theirs = record(folder(config)), record(folder(there))
    assert len(ours) == len(theirs) == 8
    for mine, other in zip(ours, theirs, strict=True):
        known = {key: value for key, value in mine.items() if value is not None}  # undefined without a sure detection
        assert mine.keys() - known.keys() == {key for key, value in other.items() if value is None}
        wanted = {key: other[key] for key in known}
        assert known == pytest.approx(wanted, rel=1e-4, abs=1e-4), mine["step"]
    a, b = (load_file(folder(c) / "student.safetensors") for c in (config, there))
    for key, value in a.items():
        torch.testing.assert_close(value, b[key], rtol=1e-3, atol=1e-4)


def test_correlation_equals_numpys_and_ignores_scale_and_shift():
    g = torch.Generator().manual_seed(0)
    a, b = (torch.randn(3, 2, 4, 5, generator=g, dtype=torch.float64) for _ in range(2))
    wanted = [1 - torch.corrcoef(torch.stack([a[:, c].flatten(), b[:, c].flatten()]))[0, 1] for c in range(2)]
    torch.testing.assert_close(pearson_distance(a, b).mean(), torch.stack(wanted).mean())
    torch.testing.assert_close(pearson_distance(3 * a + 7, b), pearson_distance(a, b))
    assert pearson_distance(a, -a).mean() == pytest.approx(2.0)


def test_every_object_weighs_one_whatever_its_size_and_so_does_the_background():
    boxes = torch.tensor([[[0.0, 0, 8, 8], [16, 16, 32, 32], [0, 0, 0, 0]], [[0, 0, 0, 0]] * 3])
    labels = torch.tensor([[0, 2, -1], [-1, -1, -1]])
    objects, behind = cell_weights(boxes, labels, (8, 8), (32, 32))
    assert objects[0].sum() == pytest.approx(2.0) and objects[1].sum() == 0
    assert objects[0, :2, :2].eq(1 / 4).all() and objects[0, 4:, 4:].eq(1 / 16).all()
    assert behind.sum((1, 2)).tolist() == pytest.approx([1.0, 1.0]) and (behind[0] > 0).sum() == 64 - 20


def test_fgd_refuses_maps_of_other_sizes():
    spec = DataSpec(Boxes(("a",)), Scenes((3, 32, 32), (0.5,) * 3, (0.5,) * 3), 4)
    term = FGD(["fpn2"], 0.5, 1.0, 0.5, 1.0, 0.0)
    with pytest.raises(ValueError, match=r"FGD compares maps of one size, and the student's 'fpn2' is \[4, 4\]"):
        term.build(Shapes((2,), {"fpn2": (3, 4, 4)}), Shapes((2,), {"fpn2": (3, 2, 2)}), spec)


def test_retinanets_losses_and_detections_equal_torchvisions():
    from torchvision.models.detection import RetinaNet as Stock
    from torchvision.models.detection.image_list import ImageList

    torch.manual_seed(0)
    pyramid = Pyramid(Plain(3, [4, 6, 8]), [1, 2], 8)
    numbers = {"positive": 0.5, "negative": 0.4, "candidates": 50, "min_score": 0.009, "detection_nms": 0.5}
    net = RetinaNet(pyramid, 2, [[12], [24]], [0.5, 1.0], Matching(**numbers, max_detections=20)).eval()
    torch.nn.init.normal_(net.dense.classification_head.cls_logits.weight, std=0.3)
    images = torch.randn(2, 3, 48, 64)

    class Levels(torch.nn.Module):
        out_channels = 8

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            maps = pyramid(x)
            return {role: maps[role] for role in pyramid.roles}

    class Passed(torch.nn.Module):
        def forward(self, x: list[Tensor], targets: object = None) -> tuple[ImageList, object]:
            return ImageList(torch.stack(x), [(48, 64)] * len(x)), targets

        def postprocess(self, result: object, *_: object) -> object:
            return result

    stock = Stock(
        Levels(),
        num_classes=2,
        anchor_generator=net.anchors,
        head=net.dense,
        score_thresh=0.009,
        detections_per_img=20,
        topk_candidates=50,
    )
    stock.transform = Passed()
    boxes = torch.tensor([[[4.0, 4, 24, 20], [30, 10, 50, 40]], [[10, 10, 22, 40], [0, 0, 0, 0]]])
    labels = torch.tensor([[0, 1], [1, -1]])
    inputs = {"images": images, "sizes": torch.tensor([[48, 64], [48, 64]])}
    learning = {**inputs, "boxes": boxes, "box_labels": labels, "crowd": torch.zeros(2, 2, dtype=torch.bool)}
    outputs = net(learning)
    given = [{"boxes": b[c >= 0], "labels": c[c >= 0]} for b, c in zip(boxes, labels, strict=True)]
    stock.train()
    pyramid.eval()  # batch norms rest
    wanted = stock(list(images), given)
    for term, key in ((AnchorClasses(0.25, 2.0), "classification"), (AnchorBoxes(), "bbox_regression")):
        values = term(outputs, outputs, Batch(learning, {}, torch.arange(2)), Progress(0, 1, 1))
        torch.testing.assert_close(values.mean(), wanted[key])
    with torch.no_grad():
        found, theirs = net.eval()(inputs).features["detections"], stock.eval()(list(images))
    assert (found[..., 5] >= 0).sum() > 10
    for mine, image in zip(found, theirs, strict=True):
        mine = mine[mine[:, 5] >= 0]
        assert torch.equal(mine[:, 5].long(), image["labels"])
        torch.testing.assert_close(mine[:, :4], image["boxes"], rtol=1e-5, atol=1e-4)
        torch.testing.assert_close(mine[:, 4], image["scores"])
