"""The task of boxes: targets, predictions and evaluation in pixels of the original image."""

import pytest
import torch
from torch import Tensor, nn

from kdx.core.batch import Batch
from kdx.core.errors import UserError
from kdx.core.outputs import Outputs
from kdx.evals.predictions import predictions
from kdx.evals.task_metrics import TaskMetrics
from kdx.losses.logits.kd import KD
from kdx.tasks.boxes import Boxes

TASK = Boxes(("cat", "dog"))
CPU = torch.device("cpu")


def batches(size: int, scale: float = 1.0) -> list[Batch]:
    """Seven images whose inputs are their numbers, with up to two objects."""
    g = torch.Generator().manual_seed(0)
    low = torch.randint(0, 50, (7, 2, 2), generator=g).float()
    boxes = torch.cat([low, low + torch.randint(5, 60, (7, 2, 2), generator=g)], -1)
    labels = torch.randint(0, 2, (7, 2), generator=g)
    labels[3] = -1
    areas = (boxes[..., 2:] - boxes[..., :2]).prod(-1)
    targets = {
        "boxes": boxes * scale,
        "box_labels": labels,
        "crowd": torch.zeros(7, 2, dtype=torch.bool),
        "areas": areas,
        "scales": torch.full((7, 2), scale),
    }
    whole = Batch({"images": torch.arange(7.0)[:, None], "sizes": torch.ones(7, 2)}, targets, torch.arange(7))
    return whole.chunk(-(-7 // size))


class Known(nn.Module):
    """Answers with the objects themselves, moved by some pixels."""

    def __init__(self, split: list[Batch], shift: float):
        super().__init__()
        boxes, labels = (torch.cat([b.target(name) for b in split]) for name in ("boxes", "box_labels"))
        score = torch.linspace(0.5, 1, boxes.shape[0] * 2).view(-1, 2, 1)
        self.rows = torch.cat([boxes + shift, score, labels[..., None].float()], -1)

    def forward(self, inputs: dict[str, Tensor]) -> Outputs:
        found = self.rows[inputs["images"].flatten().long()]
        return Outputs(torch.zeros(0, 3), {"detections": found}, owner=torch.zeros(0, dtype=torch.long))


def measured(split: list[Batch], net: nn.Module) -> dict[str, float]:
    own = TaskMetrics(loaders={"test": split}, device=CPU, task=TASK, split="test", model="student", every=None)
    return own.run({"student": net})


@pytest.mark.parametrize("size", [1, 3, 7])
def test_short_batches_measure_what_one_batch_does(size: int):
    whole = measured(batches(7), Known(batches(7), 2.0))
    assert 0 < whole["test/ap"] < 1
    assert measured(batches(size), Known(batches(7), 2.0)) == whole


def test_the_objects_themselves_have_the_best_numbers_and_every_number_is_described():
    best = measured(batches(3), Known(batches(7), 0.0))
    assert best["test/ap"] == best["test/ap_dog"] == pytest.approx(1.0)
    assert {name.removeprefix("test/") for name in best} <= {metric.name for metric in TASK.described}
    assert TASK.primary.better == "higher" and TASK.primary.heading == "AP %"


def test_evaluation_is_in_pixels_of_the_original_image():
    one, half = measured(batches(7), Known(batches(7), 2.0)), measured(batches(7, 0.5), Known(batches(7, 0.5), 1.0))
    assert half == pytest.approx(one, abs=1e-12) and any("small" in name or "medium" in name for name in one)


def test_predictions_keep_detections_and_objects_in_the_order_of_the_set():
    net = Known(batches(7), 1.0)
    kept = predictions({"student": net}, batches(3), CPU, TASK)
    assert torch.equal(kept["student/detections"], net.rows)
    assert torch.equal(kept["boxes"], batches(7)[0].target("boxes")) and kept["box_labels"].shape == (7, 2)


def test_a_network_follows_itself_and_other_networks_are_refused():
    follows, net = TASK.fidelity(), Known(batches(7), 1.0)
    follows.update(net.rows, net.rows)
    assert follows.compute()["ap50_to_teacher"] == pytest.approx(1.0)
    with pytest.raises(UserError, match="detections"):
        TASK.answer(Outputs(torch.zeros(2, 3)))
    with pytest.raises(UserError, match="an ensemble needs a task with classes"):
        TASK.together([net.rows, net.rows])


def test_a_term_on_logits_fits_a_region_and_not_an_image():
    assert TASK.each_row.num_outputs == 3 and TASK.each_row.fits(KD) is None
    assert TASK.fits(KD) == "KD needs a task with classes, and this task has boxes"


def test_made_up_targets_have_objects_and_an_image_without():
    made = TASK.made_up(3)
    labels = made["box_labels"]
    assert labels.max() < 2 and bool((labels >= 0).any(1)[:2].all()) and bool((labels[2] < 0).all())
    split = Batch(torch.zeros(3, 1), made, torch.arange(3))
    assert [len(part) for part in split.chunk(2)] == [2, 1] and split.share(1, 2).target("boxes").shape == (1, 2, 4)
