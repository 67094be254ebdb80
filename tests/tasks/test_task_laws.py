"""Laws of all tasks: streaming is exact, a perfect network has the best numbers, descriptions are complete."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from kdx.core.batch import Batch
from kdx.core.outputs import Outputs
from kdx.core.task import CLASSES, LABELS, PIXELS, TOKENS, VALUES, Task
from kdx.engine.record.meter import Meter
from kdx.evals.task_metrics import TaskMetrics
from kdx.losses.logits.kd import KD
from kdx.losses.logits.logit_mse import LogitMSE
from kdx.tasks.classes import Classes
from kdx.tasks.labels import Labels
from kdx.tasks.pixels import Pixels
from kdx.tasks.tokens import MaskedTokens
from kdx.tasks.values import Values

SIZE, OUTPUTS, LENGTH = 23, 6, 3
TASKS = {
    CLASSES: Classes(OUTPUTS),
    VALUES: Values(tuple(float(i) for i in range(OUTPUTS)), tuple(0.5 + i for i in range(OUTPUTS))),
    LABELS: Labels(OUTPUTS),
    TOKENS: MaskedTokens(OUTPUTS, LENGTH),
    PIXELS: Pixels(OUTPUTS, (3, 4)),
}
BEST = {
    CLASSES: {"top1": 1, "top5": 1},
    VALUES: {"rmse": 0, "mae": 0, "r2": 1},
    LABELS: {"map": 1, "micro_f1": 1},
    TOKENS: {"perplexity": 1, "token_accuracy": 1, "token_nll": 0},
    PIXELS: {"miou": 1, "pixel_accuracy": 1, "class_accuracy": 1},
}


class Lookup(nn.Module):
    """Answers example i with row i of a table."""

    def __init__(self, rows: Tensor):
        super().__init__()
        self.rows = rows

    def forward(self, x: Tensor) -> Outputs:
        return Outputs(self.rows[x.flatten()])


def targets(kind: str) -> Tensor:
    g = torch.Generator().manual_seed(3)
    if kind == CLASSES:
        return torch.randint(OUTPUTS, (SIZE,), generator=g)
    if kind == TOKENS:  # some examples have no hidden token
        return torch.randint(-3, OUTPUTS, (SIZE, LENGTH), generator=g).clamp(min=-1)
    if kind == PIXELS:
        return torch.randint(OUTPUTS, (SIZE, 3, 4), generator=g)
    drawn = torch.randn(SIZE, OUTPUTS, generator=g)
    return drawn if kind == VALUES else (drawn > 0.3).float()


def split(kind: str, size: int) -> list[Batch]:
    name = {VALUES: "values", LABELS: "presence"}.get(kind, "labels")
    parts = zip(torch.arange(SIZE).split(size), targets(kind).split(size), strict=True)
    return [Batch(index[:, None], {name: target}, index) for index, target in parts]


def perfect(kind: str) -> Tensor:
    of = targets(kind)
    if kind in (CLASSES, TOKENS):
        return 50 * torch.eye(OUTPUTS)[of]
    if kind == PIXELS:
        return 50 * torch.eye(OUTPUTS)[of].movedim(-1, 1)
    return of if kind == VALUES else 100 * of - 50


def drawn(kind: str) -> Tensor:
    """Answers of a network that knows nothing."""
    g = torch.Generator().manual_seed(5)
    shapes = {TOKENS: (LENGTH, OUTPUTS), PIXELS: (OUTPUTS, 3, 4)}
    return torch.randn(SIZE, *shapes.get(kind, (OUTPUTS,)), generator=g)


def counted(kind: str, logits: Tensor) -> Tensor:
    (batch,) = split(kind, SIZE)
    return TASKS[kind].counted(logits, batch)


def measured(task: Task, rows: Tensor, size: int) -> dict[str, float]:
    evaluator = TaskMetrics(
        loaders={"test": split(task.kind, size)},
        device=torch.device("cpu"),
        task=task,
        split="test",
        model="student",
        every=None,
    )
    return evaluator.run({"student": Lookup(rows)})


@pytest.mark.parametrize("kind", TASKS)
def test_short_batches_measure_what_one_batch_does(kind: str):
    rows = drawn(kind)
    whole = measured(TASKS[kind], rows, SIZE)
    assert len(whole) >= 3
    for size in (1, 5, 22):
        assert measured(TASKS[kind], rows, size) == pytest.approx(whole, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("kind", TASKS)
def test_a_perfect_network_has_the_best_numbers_and_beats_any_other(kind: str):
    task, key = TASKS[kind], f"test/{TASKS[kind].primary.name}"
    best = measured(task, perfect(kind), 5)
    for name, value in BEST[kind].items():
        assert best[f"test/{name}"] == pytest.approx(value, abs=1e-6)
    worse = measured(task, drawn(kind), 5)
    assert task.primary.beats(best[key], worse[key]) and not task.primary.beats(worse[key], best[key])


@pytest.mark.parametrize("kind", TASKS)
def test_every_number_of_a_task_is_described(kind: str):
    task = TASKS[kind]
    names = {name.removeprefix("test/") for name in measured(task, perfect(kind), 5)}
    assert names == {metric.name for metric in task.described}
    assert task.primary in task.described and task.primary.better is not None
    fidelity = task.fidelity()
    fidelity.update(counted(kind, perfect(kind)), counted(kind, perfect(kind)))
    assert fidelity.compute().keys() == {metric.name for metric in fidelity.described}


@pytest.mark.parametrize("kind", TASKS)
def test_a_network_follows_itself(kind: str):
    fidelity = TASKS[kind].fidelity()
    rows = counted(kind, drawn(kind))
    for part in rows.split(5):
        fidelity.update(part, part)
    for metric in fidelity.described:
        assert fidelity.compute()[metric.name] == pytest.approx(1 if metric.better == "higher" else 0, abs=1e-12)


@pytest.mark.parametrize("kind", TASKS)
def test_the_training_metric_of_uneven_steps_is_that_of_all_their_examples(kind: str):
    from kdx.core.outputs import Step

    task, rows = TASKS[kind], drawn(kind)

    def read(size: int) -> dict[str, float]:
        meter = Meter(task)
        for step, batch in enumerate(split(kind, size)):
            meter.add(step, Step({}, outputs=Outputs(rows[batch.index])), batch)
        return meter.read()

    assert read(5) == pytest.approx(read(SIZE), rel=1e-6) and len(read(5)) == 1


@pytest.mark.parametrize("kind", TASKS)
def test_joint_predictions_of_one_network_twice_are_its_own(kind: str):
    task, rows = TASKS[kind], drawn(kind)
    alone = measured(task, rows, SIZE)
    assert measured(task, task.together([rows, rows]), SIZE) == pytest.approx(alone, rel=1e-5, abs=1e-6)


def test_values_are_measured_in_their_own_unit():
    task, rows = Values((100.0,), (20.0,)), torch.tensor([[0.5]])
    batch = Batch(torch.zeros(1, 1), {"values": torch.tensor([[-0.5]])}, torch.arange(1))
    metrics = task.metrics()["errors"]
    metrics.update(*task.pair(Outputs(rows), batch))
    assert metrics.compute()["rmse"] == pytest.approx(20.0)
    assert task.predictions(Outputs(rows))["value"].tolist() == [[110.0]]
    assert task.kept_targets(batch)["target"].tolist() == [[90.0]]


def test_a_part_that_needs_other_targets_is_refused_in_a_sentence():
    assert TASKS[CLASSES].fits(KD) is None and TASKS[VALUES].fits(LogitMSE) is None
    reason = TASKS[VALUES].fits(KD)
    assert reason == "KD needs a task with classes, and this task has values"


def test_a_batch_without_a_target_says_which_it_has():
    batch = split(VALUES, SIZE)[0]
    with pytest.raises(Exception, match="no target 'labels'; its targets are: values"):
        _ = batch.labels
    with pytest.raises(Exception, match="no target 'labels'; its targets are: values"):
        _ = batch.soft_labels
    assert replace(batch).target("values").shape == (SIZE, OUTPUTS)


def test_a_term_on_classes_fits_the_tokens_of_a_text():
    task = TASKS[TOKENS]
    assert task.fits(KD) == "KD needs a task with classes, and this task has tokens"
    assert task.each_row is not None and task.each_row.fits(KD) is None
    assert all(TASKS[kind].each_row is None for kind in TASKS if kind not in (TOKENS, PIXELS))


def test_fidelity_of_texts_counts_hidden_tokens_alone():
    rows, (batch,) = drawn(TOKENS), split(TOKENS, SIZE)
    other = torch.where((batch.labels >= 0)[..., None], rows, -rows)
    fidelity = TASKS[TOKENS].fidelity()
    fidelity.update(*(TASKS[TOKENS].counted(logits, batch) for logits in (rows, other)))
    assert fidelity.compute()["agreement"] == 1 and fidelity.compute()["kl"] == 0
