"""Faster R-CNN against torchvision's with the same weights, and laws of its sampling."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kdx.core.batch import Batch
from kdx.core.outputs import Outputs
from kdx.core.schedule import Progress
from kdx.losses.detection.own import Objectness, ProposalBoxes, RegionBoxes, RegionClasses
from kdx.models.detectors.backbone import Pyramid, timm_backbone
from kdx.models.detectors.faster_rcnn import FasterRCNN, Sampling
from kdx.models.detectors.sampling import assigned, balanced, uniform

SIZE, CLASSES = (64, 96), 3
SAMPLING: dict[str, Any] = {
    "rpn_positive": 0.7,
    "rpn_negative": 0.3,
    "rpn_batch": 10000,
    "rpn_share": 0.999,
    "pre_nms": 100,
    "post_nms": 20,
    "proposal_nms": 0.7,
    "region_positive": 0.5,
    "region_batch": 10000,
    "region_share": 0.999,
    "min_score": 0.05,
    "detection_nms": 0.5,
    "max_detections": 30,
}
SIZES = torch.tensor([[64, 96], [50, 96], [64, 70]])
TERMS = {
    "loss_objectness": Objectness(),
    "loss_rpn_box_reg": ProposalBoxes(),
    "loss_classifier": RegionClasses(),
    "loss_box_reg": RegionBoxes(),
}


def detector(**other: Any) -> FasterRCNN:
    torch.manual_seed(0)
    backbone = timm_backbone("test_efficientnet", None, [2, 3], 3, False)
    net = FasterRCNN(
        Pyramid(backbone, [2, 3], 16),
        CLASSES,
        [[16], [32]],
        [0.5, 1.0],
        3,
        24,
        False,
        Sampling(**{**SAMPLING, **other}),
    )
    for layer, scale in ((net.classifier, 4.0), (net.regressor, 0.3), (net.rpn.cls_logits, 1.0)):
        nn.init.normal_(layer.weight, std=scale / 5)
    return net


def images() -> Tensor:
    x = torch.randn(3, 3, *SIZE, generator=torch.Generator().manual_seed(1))
    for image, (h, w) in zip(x, SIZES.tolist(), strict=True):
        image[:, h:], image[:, :, w:] = 0, 0
    return x


def targets() -> dict[str, Tensor]:
    boxes = torch.tensor(
        [
            [[4.0, 4, 24, 28], [40, 10, 80, 50], [0, 0, 0, 0]],
            [[30, 20, 60, 45], [0, 0, 0, 0], [0, 0, 0, 0]],
            [[2, 2, 40, 40], [10, 30, 30, 60], [50, 5, 66, 21]],
        ]
    )
    labels = torch.tensor([[0, 2, -1], [1, -1, -1], [2, 0, 1]])
    return {"boxes": boxes, "box_labels": labels, "crowd": torch.zeros(3, 3, dtype=torch.bool)}


def inputs(**more: Tensor) -> dict[str, Tensor]:
    return {"images": images(), "sizes": SIZES, **more}


def theirs(net: FasterRCNN) -> nn.Module:
    """torchvision's own detector with the same weights and the same numbers."""
    from torchvision.models.detection import FasterRCNN as Stock
    from torchvision.models.detection.image_list import ImageList

    class Levels(nn.Module):
        out_channels = 16

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            maps = net.pyramid(x)
            return {role: maps[role] for role in net.pyramid.roles}

    class Passed(nn.Module):
        def forward(self, x: list[Tensor], targets: Any = None) -> tuple[ImageList, Any]:
            return ImageList(torch.stack(x), [tuple(s) for s in SIZES.tolist()]), targets

        def postprocess(self, result: Any, *_: Any) -> Any:
            return result

    s = net.sampling
    stock: Any = Stock(
        Levels(),
        num_classes=CLASSES + 1,
        rpn_anchor_generator=net.anchors,
        rpn_head=net.rpn,
        rpn_pre_nms_top_n_train=s.pre_nms,
        rpn_pre_nms_top_n_test=s.pre_nms,
        rpn_post_nms_top_n_train=s.post_nms,
        rpn_post_nms_top_n_test=s.post_nms,
        rpn_batch_size_per_image=s.rpn_batch,
        rpn_positive_fraction=0.999,
        box_batch_size_per_image=s.region_batch,
        box_positive_fraction=0.999,
        box_detections_per_img=s.max_detections,
        box_roi_pool=net.pool,
        box_head=net.embed,
    )
    stock.transform = Passed()
    predictor = stock.roi_heads.box_predictor
    # their background is class 0, and has box regression of its own
    head = net.head
    with torch.no_grad():
        predictor.cls_score = nn.Linear(24, CLASSES + 1)
        predictor.cls_score.weight.copy_(head.weight.roll(1, 0))
        predictor.cls_score.bias.copy_(head.bias.roll(1, 0))
        predictor.bbox_pred = nn.Linear(24, 4 * (CLASSES + 1))
        predictor.bbox_pred.weight[4:], predictor.bbox_pred.bias[4:] = net.regressor.weight, net.regressor.bias
    return stock


def test_detections_equal_torchvisions():
    net = detector().eval()
    with torch.no_grad():
        ours = net(inputs()).features["detections"]
        found = theirs(net).eval()(list(images()))
    assert (ours[..., 5] >= 0).sum() > 10
    for mine, image in zip(ours, found, strict=True):
        mine = mine[mine[:, 5] >= 0]
        assert torch.equal(mine[:, 5].long(), image["labels"] - 1)
        torch.testing.assert_close(mine[:, :4], image["boxes"], rtol=1e-5, atol=1e-4)
        torch.testing.assert_close(mine[:, 4], image["scores"], rtol=1e-5, atol=1e-6)


def losses(net: nn.Module, given: dict[str, Tensor]) -> dict[str, Tensor]:
    outputs = net(given)
    batch = Batch(given, {}, torch.arange(len(given["images"])))
    found = {}
    for name, term in TERMS.items():
        term.background = CLASSES
        found[name] = term(outputs, outputs, batch, Progress(0, 1, 1))
    return found


def test_losses_of_one_forward_equal_torchvisions():
    net = detector().train().requires_grad_(True)
    net.pyramid.eval()  # statistics of batch norm must not move between the two
    own = targets()
    for i in range(3):  # image by image, since torchvision divides by the samples of the whole batch
        alone = {name: t[i : i + 1] for name, t in inputs(**own, draws=torch.arange(3)).items()}
        ours = losses(net, alone)
        stock = theirs(net).train()
        stock.transform.forward = lambda x, t, i=i: (_list(x, SIZES[i]), t)
        real = own["box_labels"][i] >= 0
        wanted = stock([images()[i]], [{"boxes": own["boxes"][i][real], "labels": own["box_labels"][i][real] + 1}])
        assert wanted.keys() == ours.keys()
        for name, value in wanted.items():
            assert value > 0
            torch.testing.assert_close(ours[name][0], value, rtol=1e-5, atol=1e-6)


def _list(x: list[Tensor], size: Tensor) -> Any:
    from torchvision.models.detection.image_list import ImageList

    return ImageList(torch.stack(x), [(int(size[0]), int(size[1]))])


def same(a: Outputs, b: Outputs, roles: tuple[str, ...]) -> None:
    torch.testing.assert_close(a.logits, b.logits)
    for role in roles:
        torch.testing.assert_close(a.features[role], b.features[role])


def test_an_example_has_the_same_regions_in_any_batch():
    net = detector(rpn_batch=16, region_batch=8, rpn_share=0.5, region_share=0.5).eval()
    own = inputs(**targets(), draws=torch.tensor([7, 8, 9]))
    whole = net(own)
    assert whole.owner is not None and (whole.features["rpn.labels"] >= 0).sum(1).tolist() == [16] * 3
    for i in range(3):
        alone = net({name: t[i : i + 1] for name, t in own.items()})
        mine = whole.owner == i
        torch.testing.assert_close(alone.logits, whole.logits[mine], rtol=1e-4, atol=1e-4)
        assert torch.equal(alone.features["regions.labels"], whole.features["regions.labels"][mine])
        assert torch.equal(alone.features["rpn.labels"][0], whole.features["rpn.labels"][i])
    other = net({**own, "draws": own["draws"] + 100})
    assert not torch.equal(other.features["rpn.labels"], whole.features["rpn.labels"])


def test_permuting_the_objects_changes_no_loss():
    net = detector(region_batch=10000).eval()
    own, order = targets(), torch.tensor([2, 0, 1])
    other = {name: t[:, order] for name, t in own.items()}
    draws = torch.arange(3)
    a, b = (losses(net, inputs(**given, draws=draws)) for given in (own, other))
    for name, value in a.items():
        torch.testing.assert_close(value, b[name])


def test_a_teacher_asked_for_the_regions_of_a_student_answers_row_by_row():
    net = detector(region_batch=8, region_share=0.5).eval()
    student = net(inputs(**targets(), draws=torch.arange(3)))
    assert student.owner is not None
    asked = net(inputs(regions=student.features["regions"], owner=student.owner))
    same(student, asked, ("regions", "regions.deltas", "regions.pooled", "rpn.logits", "rpn.deltas"))
    order = torch.randperm(len(student.logits), generator=torch.Generator().manual_seed(0))
    mixed = net(inputs(regions=student.features["regions"][order], owner=student.owner[order]))
    torch.testing.assert_close(mixed.logits, student.logits[order])


@pytest.mark.parametrize("labels", [-1, 0])
def test_images_without_objects_or_with_one_pixel_have_finite_losses_and_gradients(labels: int):
    net = detector().train()
    own = targets()
    own["boxes"] = torch.tensor([5.0, 6.0, 6.0, 7.0]).expand(3, 3, 4).clone()
    own["box_labels"] = torch.full((3, 3), labels)
    total = sum(value.mean() for value in losses(net, inputs(**own, draws=torch.arange(3))).values())
    assert isinstance(total, Tensor) and total.isfinite()
    total.backward()
    grads = [p.grad for p in net.parameters() if p.grad is not None]
    assert grads and all(g.isfinite().all() for g in grads)


def test_no_proposals_give_no_detections_and_losses_of_zero():
    net = detector().eval()
    none = inputs(regions=torch.zeros(0, 4), owner=torch.zeros(0, dtype=torch.long))
    outputs = net(none)
    assert outputs.logits.shape == (0, CLASSES + 1)
    empty = net.detections(
        __import__("kdx.models.detectors.faster_rcnn", fromlist=["Regions"]).Regions(
            torch.zeros(0, 4), torch.zeros(0, dtype=torch.long)
        ),
        outputs.logits,
        outputs.features["regions.deltas"],
        SIZES,
    )
    assert (empty[..., 5] == -1).all()


def test_a_crowd_is_neither_object_nor_background():
    net = detector()
    boxes = torch.tensor([[0.0, 0, 10, 10], [50, 50, 60, 60], [20, 20, 30, 30]])
    objects = torch.tensor([[20.0, 20, 30, 30], [0, 0, 40, 15]])
    labels, crowd = torch.tensor([1, 2]), torch.tensor([False, True])
    # the same scene twice, once with the other object as the crowd
    given = (objects.expand(2, 2, 4), labels.expand(2, 2), torch.stack([crowd, ~crowd]))
    match, kind = assigned(net.matcher, boxes, *given)
    assert kind[0].tolist() == [-1, 0, 1] and match[0, 2] == 0
    assert kind[1, 2] == -1


def test_random_numbers_are_uniform_and_independent_of_the_batch():
    numbers = uniform(torch.arange(50), 400)
    assert 0 <= numbers.min() and numbers.max() < 1
    assert torch.equal(uniform(torch.tensor([31]), 10)[0], numbers[31, :10])
    counts = (numbers.flatten() * 10).long().bincount(minlength=10).double() / numbers.numel()
    assert (counts - 0.1).abs().max() < 0.01
    assert torch.corrcoef(numbers).fill_diagonal_(0).abs().max() < 0.25
    assert torch.corrcoef(numbers.T).fill_diagonal_(0).abs().mean() < 0.15


def test_a_sample_has_at_most_its_share_of_positives_and_never_an_ignored_one():
    labels = torch.tensor([1] * 10 + [0] * 30 + [-1] * 5)
    few = torch.where(torch.arange(45) < 12, labels, -1)
    numbers = torch.rand(2, 45, generator=torch.Generator().manual_seed(0))
    chosen = balanced(torch.stack([labels, few]), numbers, 16, 0.25)
    for own, mine, drawn, negatives in zip((labels, few), chosen, numbers, (12, 2), strict=True):
        assert (own[mine] == 1).sum() == 4 and (own[mine] == 0).sum() == negatives and len(own[mine]) == 4 + negatives
        for kind in (0, 1):  # those with the lowest numbers
            if bool((mine & (own == kind)).any()) and bool((~mine & (own == kind)).any()):
                assert drawn[mine & (own == kind)].max() < drawn[~mine & (own == kind)].min()


@pytest.mark.parametrize("lenient", [True, False])
def test_matches_are_those_of_torchvisions_matcher_image_by_image(lenient: bool):
    from torchvision.models.detection._utils import Matcher
    from torchvision.ops import box_iou

    g = torch.Generator().manual_seed(int(lenient))
    corner, other = torch.rand(4, 6, 2, generator=g) * 40, torch.rand(50, 2, generator=g) * 40
    objects = torch.cat([corner, corner + 4 + 20 * torch.rand(4, 6, 2, generator=g)], 2)
    boxes = torch.cat([other, other + 4 + 20 * torch.rand(50, 2, generator=g)], 1)
    labels = torch.randint(-1, 3, (4, 6), generator=g)
    labels[3] = -1  # an image without objects
    matcher = Matcher(0.5, 0.3, lenient)
    match, kind = assigned(matcher, boxes, objects, labels, torch.zeros(4, 6, dtype=torch.bool))
    assert {-1, 0, 1} == set(kind.unique().tolist()) and bool((kind[3] == 0).all())
    for b in range(3):
        real = (labels[b] >= 0).nonzero().flatten()
        wanted = matcher(box_iou(objects[b, real], boxes))
        assert torch.equal(kind[b], torch.where(wanted >= 0, 1, torch.where(wanted == -1, 0, -1)))
        assert torch.equal(match[b][wanted >= 0], real[wanted[wanted >= 0]])
