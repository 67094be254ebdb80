"""Peers and their ensemble, counted by hand over the whole split."""

import pytest
import torch
from test_evaluators import CPU, Fixed, networks, split

from kdx.core.functional import mean_log_probs
from kdx.evals.peers import Peers
from kdx.evals.task_metrics import TaskMetrics
from kdx.tasks.classes import Classes

TASK = Classes(6)


def several(size: int, classes: int) -> dict[str, Fixed]:
    g = torch.Generator().manual_seed(9)
    peers = {f"peer{i}": Fixed(3 * torch.randn(size, classes, generator=g), ()) for i in (1, 2)}
    return networks(size, classes) | peers


@pytest.mark.parametrize("batch_size", [4, 23])
def test_each_peer_is_measured_as_a_student_is(batch_size: int):
    models, loaders = several(23, 6), {"test": split(23, 6, batch_size)}
    values = Peers(loaders=loaders, device=CPU, task=TASK, split="test", every=None).run(models)
    for role in ("peer1", "peer2"):
        alone = TaskMetrics(loaders=loaders, device=CPU, task=TASK, split="test", model=role, every=None).run(models)
        assert {k: v for k, v in values.items() if k.startswith(role)} == pytest.approx(alone)
    assert {name.split("/")[0] for name in values} == {"peer1", "peer2", "ensemble"}


def test_the_ensemble_is_the_mean_of_the_probabilities_without_the_teacher():
    models, labels = several(23, 6), (torch.arange(23) * 7) % 6
    values = Peers(loaders={"test": split(23, 6, 5)}, device=CPU, task=TASK, split="test", every=None).run(models)
    mean = sum(models[r].logits.double().softmax(1) for r in ("student", "peer1", "peer2")) / 3
    assert values["ensemble/test/top1"] == pytest.approx((mean.argmax(1) == labels).double().mean().item())
    nll = -mean[torch.arange(23), labels].log().mean().item()
    assert values["ensemble/test/nll"] == pytest.approx(nll, rel=1e-5)


def test_a_method_with_an_ensemble_of_its_own_is_asked_for_it():
    models = several(23, 6)
    models["ensemble"] = models["peer2"]
    values = Peers(loaders={"test": split(23, 6, 5)}, device=CPU, task=TASK, split="test", every=None).run(models)
    assert values["ensemble/test/nll"] == values["peer2/test/nll"]


def test_log_probabilities_survive_large_logits():
    certain = torch.tensor([[200.0, -200.0]])
    found = mean_log_probs([certain.log_softmax(1), certain.flip(1).log_softmax(1)], torch.tensor([0.5, 0.5]))
    assert torch.allclose(found, torch.tensor([[0.5, 0.5]]).log())
