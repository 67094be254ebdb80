"""MLKD: two Gram matrices, and the half of a batch that counts."""

import pytest
import torch

from kdx.core.batch import Batch
from kdx.core.outputs import Outputs
from kdx.core.schedule import Progress
from kdx.losses.logits.kd import KD
from kdx.losses.logits.mlkd import (
    ClassAlignment,
    InstanceAlignment,
    LeastConfident,
    class_alignment,
    least_confident,
    least_predicted,
    sample_alignment,
)

START = Progress(0, 1, 1)


def data(size: int = 7, classes: int = 5) -> tuple[Outputs, Outputs, Batch]:
    torch.manual_seed(0)
    z, v, y = 2 * torch.randn(size, classes).double(), 2 * torch.randn(size, classes).double(), torch.arange(size)
    return Outputs(z), Outputs(v), Batch.of_classes(z, y % classes, y)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_means_are_frobenius_norms(temperature: float):
    student, teacher, _ = data()
    q, p = ((o.logits / temperature).softmax(1) for o in (student, teacher))
    read = student.logits, teacher.logits, temperature
    between = torch.linalg.matrix_norm(p @ p.T - q @ q.T).square() / 7
    torch.testing.assert_close(sample_alignment(*read).mean(), between)
    among = torch.linalg.matrix_norm(p.T @ p - q.T @ q).square() / 5
    torch.testing.assert_close(class_alignment(*read).mean(), among)


def test_correlations_do_not_see_names():
    student, teacher, _ = data()
    order = torch.tensor([4, 0, 3, 1, 2])
    z, v = student.logits, teacher.logits
    # samples: the same permutation of the classes on one side alone changes nothing
    torch.testing.assert_close(sample_alignment(z[:, order], v, 2.0), sample_alignment(z, v, 2.0))
    # classes: nor does a permutation of the samples
    shuffled = z[torch.randperm(7)]
    torch.testing.assert_close(class_alignment(shuffled, v, 2.0), class_alignment(z, v, 2.0))


def test_certain_predictions_of_different_classes():
    p, q = 1000 * torch.eye(3).double(), 1000 * torch.eye(3).double()[[0, 0, 2]]
    # P P^T is the identity; the student takes the first two samples for one class
    assert sample_alignment(q, p, 1.0).tolist() == [1.0, 1.0, 0.0]
    # P^T P counts: (1, 1, 1) and (2, 0, 1)
    assert class_alignment(q, p, 1.0).tolist() == [1.0, 1.0, 0.0]


def test_half_is_kept_and_ties_are_kept():
    logits = torch.tensor([[9.0, 0.0], [1.0, 0.0], [5.0, 0.0], [0.0, 3.0]])
    assert least_confident(logits).tolist() == [0.0, 1.0, 0.0, 1.0]
    assert least_confident(logits[:3]).tolist() == [0.0, 1.0, 1.0]
    assert least_confident(torch.zeros(4, 3)).tolist() == [1.0] * 4
    assert least_predicted(torch.tensor([[9.0, 0.0, 0.0], [9.0, 0.0, 1.0]])).tolist() == [0.0, 1.0, 1.0]


def test_each_keeps_the_rows_and_share_keeps_the_mean():
    student, teacher, batch = data()
    plain = KD(4.0, "batchmean")(student, teacher, batch, START)
    kept = least_confident(teacher.logits)
    each, share, whole = (
        LeastConfident(KD(4.0, "batchmean"), keep)(student, teacher, batch, START) for keep in ("each", "share", "all")
    )
    assert torch.equal(each, plain * kept)
    assert torch.equal(whole, plain)
    # what the authors' code computes: the reduced loss times the mask, and the mean of that
    torch.testing.assert_close(share.mean(), (plain.mean() * kept).mean())


def test_the_classes_kept_are_the_teachers_least_predicted():
    student, teacher, batch = data()
    cells, kept = class_alignment(student.logits, teacher.logits, 3.0), least_predicted(teacher.logits)
    each, share = (ClassAlignment([3.0], keep)(student, teacher, batch, START) for keep in ("each", "share"))
    torch.testing.assert_close(each, (cells * kept).mean().expand(7))
    torch.testing.assert_close(share, (cells.mean() * kept).mean().expand(7))


def test_temperatures_add_up():
    student, teacher, batch = data()
    rows = InstanceAlignment([4.0, 3.0])(student, teacher, batch, START)
    parts = [KD(t, "batchmean")(student, teacher, batch, START) for t in (4.0, 3.0)]
    torch.testing.assert_close(rows, parts[0] + parts[1])


def test_no_temperature_and_another_word_are_refused():
    with pytest.raises(ValueError, match="InstanceAlignment needs at least one temperature"):
        InstanceAlignment([])
    with pytest.raises(ValueError, match="'all', 'each' or 'share', got 'half'"):
        LeastConfident(KD(4.0, "batchmean"), "half")
    with pytest.raises(ValueError, match="'all', 'each' or 'share', got 'none'"):
        ClassAlignment([4.0], "none")
