"""SDD: the classifier's word on parts of the image."""

import pytest
import torch
from torch import nn

from kdx.core.batch import Batch
from kdx.core.outputs import Outputs, Shapes
from kdx.core.schedule import Progress
from kdx.losses.logits.dkd import DKD
from kdx.losses.logits.kd import KD
from kdx.losses.logits.nkd import NKD
from kdx.losses.wrappers.logit_standardization import LogitStandardization
from kdx.losses.wrappers.sdd import SDD, disagrees, local_logits, pyramid
from kdx.tasks.classes import image_classes

SPEC = image_classes(5, (3, 8, 8), 1, (0.0,), (1.0,))
START = Progress(0, 1, 1)


class Net(nn.Module):
    """A map, its mean, a classifier."""

    def __init__(self, width: int):
        super().__init__()
        self.head = nn.Linear(width, 5).double()

    def forward(self, maps: torch.Tensor) -> Outputs:
        return Outputs(self.head(maps.mean((2, 3))), {"final": maps})


def built(term, scales=(1, 2, 4), weight=2.0) -> tuple[SDD, Net, Net]:
    torch.manual_seed(0)
    student, teacher, sdd = Net(3), Net(6), SDD(term, scales, weight)
    sdd.attach(student, teacher)
    sdd.build(Shapes((5,), {"final": (3, 8, 8)}), Shapes((5,), {"final": (6, 4, 4)}), SPEC)
    return sdd, student, teacher


def data(size: int = 6) -> tuple[torch.Tensor, torch.Tensor, Batch]:
    torch.manual_seed(1)
    labels = torch.arange(size) % 5
    maps = torch.randn(size, 3, 8, 8).double(), torch.randn(size, 6, 4, 4).double()
    return *maps, Batch.of_classes(labels, labels, labels)


@pytest.mark.parametrize(
    "term",
    [KD(4.0, "batchmean"), DKD(1.0, 8.0, 4.0), NKD(1.5, 1.0), LogitStandardization(KD(2.0, "batchmean"))],
    ids=["kd", "dkd", "nkd", "lskd"],
)
def test_the_coarsest_scale_alone_is_the_term_itself(term):
    sdd, student, teacher = built(term, scales=[1])
    mine, theirs, batch = data()
    both = student(mine), teacher(theirs)
    torch.testing.assert_close(sdd(*both, batch, START), term(*both, batch, START))


def test_a_flat_map_says_the_same_everywhere():
    sdd, student, teacher = built(KD(4.0, "batchmean"))
    batch = data()[2]
    both = (
        student(torch.randn(6, 3, 1, 1).double().expand(6, 3, 8, 8)),
        teacher(torch.randn(6, 6, 1, 1).double().expand(6, 6, 4, 4)),
    )
    torch.testing.assert_close(sdd(*both, batch, START), KD(4.0, "batchmean")(*both, batch, START))


def test_regions_of_a_scale_average_to_the_whole():
    maps = torch.randn(2, 3, 8, 8).double()
    parts = pyramid(maps, [1, 2, 4])
    assert parts.shape == (2, 21, 3)
    for start, stop in ((1, 5), (5, 21)):
        torch.testing.assert_close(parts[:, start:stop].mean(1), parts[:, 0])
    torch.testing.assert_close(parts[:, 2], maps[:, :, :4, 4:].mean((2, 3)))


def test_a_scale_finer_than_the_map_repeats_cells():
    maps = torch.randn(2, 3, 2, 2)
    coarse, fine = (pyramid(maps, [s]).view(2, s, s, 3) for s in (2, 4))
    torch.testing.assert_close(fine, coarse.repeat_interleave(2, 1).repeat_interleave(2, 2))


def test_regions_that_disagree_with_the_whole():
    yes, no = [9.0, 0.0, 0.0], [0.0, 9.0, 0.0]
    other = [0.0, 0.0, 9.0]
    local = torch.tensor([[yes, no, other], [yes, no, other]])
    whole = torch.tensor([yes, no])
    # right about the image, then wrong about it: two wrong answers agree even where they differ
    expected = [[False, True, True], [True, False, False]]
    assert disagrees(local, whole, torch.tensor([0, 0])).tolist() == expected


def test_the_weight_counts_the_teachers_disagreements():
    mine, theirs, batch = data()
    values = []
    for weight in (0.0, 1.0, 2.0):
        sdd, student, teacher = built(KD(4.0, "batchmean"), weight=weight)
        values.append(sdd(student(mine), teacher(theirs), batch, START))
    torch.testing.assert_close(values[2] - values[1], values[1] - values[0])
    said = local_logits(theirs, teacher.head.weight, teacher.head.bias, [1, 2, 4])
    apart = disagrees(said, teacher(theirs).logits, batch.labels).any(1)
    assert apart.any()
    assert torch.equal((values[2] - values[1]).abs() > 1e-12, apart)


def test_trains_the_students_classifier_and_keeps_neither():
    sdd, student, teacher = built(KD(4.0, "batchmean"))
    mine, theirs, batch = data()
    assert not list(sdd.parameters()) and not sdd.state_dict()
    sdd(student(mine), teacher(theirs), batch, START).mean().backward()
    assert student.head.weight.grad.abs().sum() > 0
    assert teacher.head.weight.grad is None


def test_pairs_that_cannot_work_are_refused():
    maps, vector = Shapes((5,), {"final": (3, 8, 8)}), Shapes((5,), {"pooled": (3,)})
    sdd = SDD(KD(4.0, "batchmean"), [1, 2], 2.0)
    with pytest.raises(ValueError, match="the student has no feature with role 'final'"):
        sdd.build(vector, maps, SPEC)
    with pytest.raises(ValueError, match="the student's classifier as one linear layer `head`; it has none"):
        sdd.build(maps, maps, SPEC)
    sdd.attach(Net(3), Net(7))
    with pytest.raises(ValueError, match="the teacher's classifier, which reads 7 channels; 'final' has 3"):
        sdd.build(maps, maps, SPEC)
    with pytest.raises(ValueError, match="at least one scale"):
        SDD(KD(4.0, "batchmean"), [], 2.0)
