"""Evaluators against the whole split in one batch, counted by hand."""

import pytest
import torch
from torch import nn

from kdx.core.batch import Batch
from kdx.core.errors import UserError
from kdx.core.outputs import Outputs
from kdx.evals.bias import Bias
from kdx.evals.fidelity import Fidelity
from kdx.evals.task_metrics import TaskMetrics
from kdx.tasks.classes import Classes

CPU, TASK = torch.device("cpu"), Classes(6)


class Fixed(nn.Module):
    """Answers that are looked up by the input's number."""

    def __init__(self, logits: torch.Tensor, roles: tuple[str, ...]):
        super().__init__()
        self.logits, self.roles = logits, roles
        self.features = torch.randn(len(logits), 6, generator=torch.Generator().manual_seed(len(roles)))
        self.modes: list[bool] = []

    def forward(self, x: torch.Tensor) -> Outputs:
        self.modes.append(torch.is_grad_enabled())
        rows = x[:, 0].long()
        return Outputs(self.logits[rows], {role: self.features[rows] * (i + 1) for i, role in enumerate(self.roles)})


def networks(size: int, classes: int) -> dict[str, Fixed]:
    g = torch.Generator().manual_seed(classes)
    student, teacher = (3 * torch.randn(size, classes, generator=g) for _ in range(2))
    return {
        "student": Fixed(student, ("stage0", "stage1", "stage2", "stage2.preact", "pooled")),
        "teacher": Fixed(teacher, ("stage0", "stage1", "stage3", "stage2.preact", "pooled")),
    }


def split(size: int, classes: int, batch_size: int) -> list[Batch]:
    inputs, labels = torch.arange(size)[:, None].float(), (torch.arange(size) * 7) % classes
    return [
        Batch.of_classes(*part)
        for part in zip(*(t.split(batch_size) for t in (inputs, labels, torch.arange(size))), strict=True)
    ]


@pytest.mark.parametrize("classes", [3, 5, 11])
@pytest.mark.parametrize("batch_size", [1, 10, 23, 100])
def test_classification_counts_every_example_once(classes: int, batch_size: int):
    size = 23  # batches of 10 leave 3
    models, loaders = networks(size, classes), {"val": split(size, classes, batch_size)}
    values = TaskMetrics(
        loaders=loaders, device=CPU, task=Classes(classes), split="val", model="student", every=1.0
    ).run(models)
    assert values.keys() == {f"val/{m}" for m in ("top1", "nll", "brier", "ece")} | (
        {"val/top5"} if classes >= 5 else set()
    )
    logits, labels = models["student"].logits.double(), (torch.arange(size) * 7) % classes
    order = logits.argsort(1, descending=True)
    probs = logits.softmax(1)
    own = probs[torch.arange(size), labels]
    assert values["val/top1"] == pytest.approx((order[:, 0] == labels).double().mean().item())
    if classes >= 5:
        assert values["val/top5"] == pytest.approx((order[:, :5] == labels[:, None]).any(1).double().mean().item())
    assert values["val/nll"] == pytest.approx(-own.log().mean().item(), rel=1e-5)
    assert values["val/brier"] == pytest.approx((probs.square().sum(1) - 2 * own + 1).mean().item(), rel=1e-5)
    confidence, right = probs.max(1).values, order[:, 0] == labels
    bins = [[i for i in range(size) if b / 15 < confidence[i] <= (b + 1) / 15] for b in range(15)]
    gaps = [abs(float(sum(right[i] for i in b)) - float(sum(confidence[i] for i in b))) for b in bins if b]
    assert values["val/ece"] == pytest.approx(sum(gaps) / size, rel=1e-5)
    assert not any(models["student"].modes)


def test_other_roles_carry_their_name():
    models, loaders = networks(20, 5), {"test": split(20, 5, 6)}
    values = TaskMetrics(loaders=loaders, device=CPU, task=TASK, split="test", model="teacher", every=None).run(models)
    assert all(name.startswith("teacher/test/") for name in values)
    assert (
        values["teacher/test/top1"]
        == TaskMetrics(loaders=loaders, device=CPU, task=TASK, split="test", model="student", every=None).run(
            {"student": models["teacher"]}
        )["test/top1"]
    )
    with pytest.raises(UserError, match="no network 'peer'; it has: student, teacher"):
        TaskMetrics(loaders=loaders, device=CPU, task=TASK, split="test", model="peer", every=None).run(models)


@pytest.mark.parametrize("batch_size", [1, 8, 100])
def test_fidelity_is_that_of_the_whole_split(batch_size: int):
    size, classes = 30, 5
    models, loaders = networks(size, classes), {"test": split(size, classes, batch_size)}
    values = Fidelity(loaders=loaders, device=CPU, task=TASK, split="test", cka_roles=None, every=None).run(models)
    student, teacher = (models[m].logits.double().log_softmax(1) for m in ("student", "teacher"))
    expected = {
        "agreement": (student.argmax(1) == teacher.argmax(1)).double().mean(),
        "kl": (teacher.exp() * (teacher - student)).sum(1).mean(),
        "reverse_kl": (student.exp() * (student - teacher)).sum(1).mean(),
    }
    x, y = (models[m].features.double() for m in ("student", "teacher"))
    x, y = x - x.mean(0), y - y.mean(0)
    cka = (y.T @ x).norm() ** 2 / ((x.T @ x).norm() * (y.T @ y).norm())
    # stages that both have; stem and pre-activations are left out
    expected |= {"cka/stage1": cka, "cka/pooled": cka}
    assert values.keys() == {f"fidelity/test/{name}" for name in expected}
    for name, value in expected.items():
        assert values[f"fidelity/test/{name}"] == pytest.approx(value.item(), rel=1e-5), name


def test_the_features_to_compare_can_be_named():
    models, loaders = networks(30, 5), {"test": split(30, 5, 8)}
    values = Fidelity(
        loaders=loaders, device=CPU, task=TASK, split="test", cka_roles=["stage2.preact"], every=None
    ).run(models)
    assert {name for name in values if "cka" in name} == {"fidelity/test/cka/stage2.preact"}
    assert not any(
        "cka" in name
        for name in Fidelity(loaders=loaders, device=CPU, task=TASK, split="test", cka_roles=[], every=None).run(models)
    )


def test_a_student_is_its_own_twin():
    models, loaders = networks(30, 5), {"train": split(30, 5, 8)}
    values = Fidelity(loaders=loaders, device=CPU, task=TASK, split="train", cka_roles=None, every=None).run(
        {"student": models["student"], "teacher": models["student"]}
    )
    assert values["fidelity/train/agreement"] == 1
    assert values["fidelity/train/kl"] == pytest.approx(0, abs=1e-6)
    assert values["fidelity/train/cka/stage2"] == pytest.approx(1, abs=1e-6)


def test_a_split_that_is_not_there():
    with pytest.raises(UserError, match="no split 'val'; this data set has: test, train"):
        TaskMetrics(loaders={"test": [], "train": []}, device=CPU, task=TASK, split="val", model="student", every=None)


def test_biases_are_moved_for_the_student_alone_and_the_network_stays():
    models, loaders = networks(23, 5), {"test": split(23, 5, 10)}
    before = models["student"].logits.clone()
    values = Bias(loaders=loaders, device=CPU, task=TASK, split="test", classes=(1, 3), prior=None, every=None).run(
        models
    )
    assert torch.equal(models["student"].logits, before)
    labels, logits = (torch.arange(23) * 7) % 5, before.double()
    for which in ("before", "match_prior", "test_optimal"):
        shift = torch.zeros(5).double()
        shift[[1, 3]] = values[f"bias/test/{which}/shift"]
        right = (logits + shift).argmax(1) == labels
        assert values[f"bias/test/{which}/top1"] == pytest.approx(right.double().mean().item())
    assert values["bias/test/before/shift"] == 0
    chosen = torch.tensor([0, 1, 0, 1, 0])
    mean = (logits + chosen * values["bias/test/match_prior/shift"]).softmax(1)[:, [1, 3]].sum(1).mean()
    assert float(mean) == pytest.approx(2 / 5)
    with pytest.raises(ValueError, match="must name"):
        Bias(loaders=loaders, device=CPU, task=TASK, split="test", classes=(), prior=None, every=None)
