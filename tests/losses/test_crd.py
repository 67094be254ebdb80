import math
from dataclasses import replace

import pytest
import torch
from law_case import CLASSES, SPEC, STUDENT, TEACHER
from loss_references import random_outputs

from kdx.core.batch import Batch
from kdx.core.outputs import Outputs, Shapes
from kdx.core.schedule import Progress
from kdx.core.seed import get_rng_state, set_rng_state
from kdx.losses.relations import crd
from kdx.losses.relations.crd import CRD, draw, noise_contrast, remembered, similarities

START = Progress(0, 10, 10)


def term(negatives: int = 12, spec=SPEC) -> CRD:
    made = CRD("pooled", "pooled", 7, negatives, 0.07, 0.5)
    made.build(Shapes((CLASSES,), STUDENT), Shapes((CLASSES,), TEACHER), spec)
    return made


def step(made: CRD, index: list[int]) -> torch.Tensor:
    outputs = [random_outputs(len(index), CLASSES, shapes, torch.float32) for shapes in (STUDENT, TEACHER)]
    where = torch.tensor(index)
    return made(*outputs, Batch.of_classes(torch.zeros(len(index), 1), where % CLASSES, where), START)


def test_negatives_are_different_examples_of_other_classes():
    labels = torch.arange(60) % 4
    chosen = draw(torch.tensor([0, 3, 0, 2]), labels, 20)
    assert chosen.shape == (4, 20)
    for own, row in zip((0, 3, 0, 2), chosen, strict=True):
        assert len(set(row.tolist())) == 20
        assert (labels[row] != own).all()
    assert set(chosen[0].tolist()) != set(chosen[2].tolist())


def test_every_other_example_is_as_likely_as_any():
    torch.manual_seed(0)
    labels = torch.tensor([0] * 5 + [1] * 3 + [2] * 12)
    drawn = draw(torch.zeros(30_000, dtype=torch.int64), labels, 6)
    share = drawn.flatten().bincount(minlength=20) / 30_000
    assert share[:5].sum() == 0
    # 6 of 15; three standard errors are 0.009
    assert (share[5:] - 6 / 15).abs().max() < 0.011
    # pairs too: being drawn together has probability 6/15 * 5/14
    both = ((drawn == 5).any(1) & (drawn == 19).any(1)).float().mean()
    assert float(both) == pytest.approx(6 / 15 * 5 / 14, abs=0.009)


def test_a_class_that_is_not_in_the_batch_gives_negatives_too():
    chosen = draw(torch.tensor([0]), torch.tensor([0, 0, 1, 2, 2]), 3)
    assert sorted(chosen[0].tolist()) == [2, 3, 4]


def test_looked_up_similarities_equal_those_of_gathered_rows(monkeypatch):
    embedded, memory = torch.randn(5, 7).double(), torch.randn(40, 7).double()
    chosen = torch.randint(40, (5, 9))
    expected = torch.stack([memory[columns] @ row for row, columns in zip(embedded, chosen, strict=True)])
    torch.testing.assert_close(similarities(embedded, memory, chosen), expected)
    monkeypatch.setattr(crd, "ELEMENTS_AT_ONCE", 80)  # two rows at once
    torch.testing.assert_close(similarities(embedded, memory, chosen), expected)


def test_pieces_draw_like_the_whole(monkeypatch):
    monkeypatch.setattr(crd, "ELEMENTS_AT_ONCE", 100)
    labels = torch.arange(60) % 4
    chosen = draw(torch.arange(7) % 4, labels, 45)
    for own, row in enumerate(chosen):
        assert sorted(row.tolist()) == [i for i in range(60) if i % 4 != own % 4]


def test_contrast_is_the_published_likelihood():
    logits = torch.randn(3, 6).double()
    k, n = 5, 200
    p = logits.exp()
    real = p[:, 0] / (p[:, 0] + k / n)
    noise = (k / n) / (p[:, 1:] + k / n)
    expected = -(real.log() + noise.log().sum(1))
    torch.testing.assert_close(noise_contrast(logits, math.log(k / n)), expected)


def test_contrast_stays_finite_where_the_quotient_would_not():
    rows = noise_contrast(torch.tensor([[-500.0, 500.0]]), 0.0)
    assert rows.tolist() == [1000.0]


def test_memory_moves_by_index_and_keeps_length_one():
    memory = torch.nn.functional.normalize(torch.randn(6, 4).double(), dim=1)
    seen = torch.nn.functional.normalize(torch.randn(2, 4).double(), dim=1)
    after = remembered(memory, torch.tensor([4, 1]), seen, 0.3)
    for row in (0, 2, 3, 5):
        assert torch.equal(after[row], memory[row])
    for row, vector in ((4, seen[0]), (1, seen[1])):
        moved = 0.3 * memory[row] + 0.7 * vector
        torch.testing.assert_close(after[row], moved / moved.norm())


def test_an_example_that_comes_twice_moves_once_towards_its_mean():
    memory = torch.eye(3).double()
    seen = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]).double()
    after = remembered(memory, torch.tensor([2, 0, 2]), seen, 0.5)
    mean = (seen[0] + seen[2]) / 2
    moved = 0.5 * memory[2] + 0.5 * mean
    torch.testing.assert_close(after[2], moved / moved.norm())


def test_constants_come_from_the_first_batch_and_stay():
    torch.manual_seed(0)
    made = term()
    assert made.log_constants.isnan().all()
    before = made.memory_teacher.clone()
    index = [3, 8, 11]
    state = get_rng_state()
    student, _ = (random_outputs(3, CLASSES, s, torch.float32) for s in (STUDENT, TEACHER))
    chosen = torch.cat([torch.tensor(index)[:, None], draw(made.labels[index], made.labels, 12)], 1)
    set_rng_state(state)
    step(made, index)
    embedded = torch.nn.functional.normalize(made.embed_student(student.feature("pooled")), dim=1)
    scores = torch.stack([before[c] @ e for c, e in zip(chosen, embedded, strict=True)]) / 0.07
    assert float(made.log_constants[0]) == pytest.approx(math.log(scores.exp().mean().item() * 100), rel=1e-5)
    first = made.log_constants.clone()
    step(made, [1, 2, 4])
    assert torch.equal(made.log_constants, first)


def test_the_gradient_is_that_of_the_memory_before_it_moved():
    torch.manual_seed(0)
    made = term(1000).double()
    resting = term(1000).double()
    resting.load_state_dict(made.state_dict())
    resting.eval()
    outputs = [random_outputs(3, CLASSES, s) for s in (STUDENT, TEACHER)]
    batch = Batch.of_classes(torch.zeros(3, 1), torch.tensor([0, 1, 2]), torch.tensor([0, 1, 2]))
    gradients = []
    for each in (made, resting):
        leaf = outputs[0].feature("pooled").clone().requires_grad_()
        each(Outputs(outputs[0].logits, {"pooled": leaf}), outputs[1], batch, START).mean().backward()
        gradients.append(leaf.grad)
    torch.testing.assert_close(*gradients)
    assert not torch.equal(made.memory_student, resting.memory_student)


def test_resumes_exactly():
    torch.manual_seed(0)
    made = term()
    step(made, [0, 7, 9])
    saved, rng = {k: v.clone() for k, v in made.state_dict().items()}, get_rng_state()
    assert {"memory_student", "memory_teacher", "log_constants"} <= saved.keys()
    assert "labels" not in saved
    expected = step(made, [4, 5, 6])
    other = term()
    other.load_state_dict(saved)
    set_rng_state(rng)
    assert torch.equal(step(other, [4, 5, 6]), expected)
    assert torch.equal(other.memory_teacher, made.memory_teacher)


def test_takes_all_there_are_where_there_are_too_few():
    labels = torch.tensor([0] * 6 + [1] * 3 + [2])
    spec = replace(SPEC, num_examples=10, labels=labels)
    assert term(16384, spec).count == 4


def test_refuses_data_without_another_class_or_without_labels():
    with pytest.raises(ValueError, match="at least two classes"):
        term(4, replace(SPEC, num_examples=5, labels=torch.zeros(5, dtype=torch.int64)))
    with pytest.raises(ValueError, match="the labels of this data set are unknown"):
        term(4, replace(SPEC, labels=None))
