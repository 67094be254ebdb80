"""Labels softened by the past, against a dictionary kept by hand."""

import pytest
import torch
from torch.nn import functional as F

from kdx.core.batch import Batch
from kdx.core.errors import UserError
from kdx.core.outputs import Outputs, Shapes
from kdx.core.schedule import EpochRamp, Progress
from kdx.losses.logits.pskd import PastPredictions
from kdx.tasks.classes import image_classes

C, N = 4, 9


def term(share=0.3) -> PastPredictions:
    made = PastPredictions(share)
    made.build(Shapes((C,), {}), None, image_classes(C, (1, 2, 2), N, (0.0,), (1.0,)))
    return made.double().train()


def epochs(count: int):
    generator = torch.Generator().manual_seed(0)
    for epoch in range(count):
        for rows in torch.randperm(N, generator=generator).split(4):
            logits = 2 * torch.randn(len(rows), C, generator=generator, dtype=torch.float64)
            yield epoch, logits.requires_grad_(), Batch.of_classes(torch.zeros(len(rows), 1), rows % C, rows)


def test_targets_are_labels_and_what_was_predicted_when_last_seen():
    pskd, past = term(EpochRamp(0.8)), {}
    for epoch, logits, batch in epochs(4):
        found = pskd(Outputs(logits), Outputs(logits.detach()), batch, Progress(epoch, 4, 4))
        share = 0.8 * (epoch + 1) / 4
        for row, index in enumerate(batch.index.tolist()):
            label = F.one_hot(batch.labels[row], C).double()
            target = (1 - share) * label + share * past.get(index, label)
            expected = -(target * logits[row].log_softmax(0)).sum()
            assert found[row].item() == pytest.approx(expected.item(), rel=1e-12)
            past[index] = logits[row].detach().softmax(0)
        (gradient,) = torch.autograd.grad(found.sum(), logits)
        assert gradient.isfinite().all()


def test_the_first_epoch_is_learnt_from_labels():
    pskd = term()
    for epoch, logits, batch in epochs(1):
        found = pskd(Outputs(logits), Outputs(logits), batch, Progress(epoch, 4, 4))
        assert torch.allclose(found, F.cross_entropy(logits, batch.labels, reduction="none"), rtol=1e-12)


def test_the_memory_is_saved_and_evaluation_leaves_it():
    pskd = term()
    _, logits, batch = next(iter(epochs(1)))
    pskd(Outputs(logits), Outputs(logits), batch, Progress(0, 4, 4))
    before = pskd.state_dict()["memory"].clone()
    assert before.abs().sum() > 0
    pskd.eval()(Outputs(logits * 2), Outputs(logits), batch, Progress(1, 4, 4))
    assert torch.equal(pskd.memory, before)


def test_mixed_examples_are_refused():
    _, logits, batch = next(iter(epochs(1)))
    mixed = Batch.of_classes(batch.inputs, batch.labels, batch.index, soft_labels=torch.full((4, C), 0.25))
    with pytest.raises(UserError, match="mixed examples do not have; choose an augmentation without mixing"):
        term()(Outputs(logits), Outputs(logits), mixed, Progress(0, 4, 4))
