"""Means over tokens: a batch in parts, or in two processes, has the gradient of the whole batch."""

import copy

import pytest
import torch
from small_encoder import SmallEncoder
from text_pair import PAIR, SPEC, VOCABULARY, lines
from torch import Tensor

from kdx.core.batch import Batch
from kdx.core.method import Method
from kdx.core.schedule import Progress
from kdx.engine.optim import gradient as module
from kdx.engine.optim.gradient import Backward
from kdx.losses.base.tokens import Average
from kdx.losses.features.distilbert import HiddenCosine
from kdx.losses.logits.cross_entropy import CrossEntropy
from kdx.losses.logits.kd import KD
from kdx.losses.wrappers.over_rows import OverRows
from kdx.methods.distill import Distill

NOW = Progress(2, 8, 8)


def method(average: Average) -> Method:
    """The triple loss on small encoders in float64."""
    student, teacher = (SmallEncoder(**sizes, num_classes=None).double() for sizes in PAIR)
    terms = {
        "mlm": OverRows(CrossEntropy(0.0), average, None),
        "kd": OverRows(KD(2.0, "batchmean"), average, 3),
        "cos": HiddenCosine(None, None, average),
    }
    return Distill(student, teacher.requires_grad_(False), SPEC, terms, {"mlm": 2.0, "kd": 5.0, "cos": 1.0}, 2.0)


def batch() -> Batch:
    """Seven texts of other lengths, of which one has no masked token, and one almost all."""
    inputs = lines(7)
    mask = inputs["attention_mask"] != 0
    hidden = mask & (torch.rand(mask.shape) < torch.tensor([0.2, 0.9, 0.0, 0.5, 0.5, 0.1, 0.7])[:, None])
    labels = torch.where(hidden, torch.randint(VOCABULARY, mask.shape), -1)
    return Batch(inputs, {"labels": labels}, torch.arange(7))


def flat(gradients: list[Tensor]) -> Tensor:
    return torch.cat([g.flatten() for g in gradients])


@pytest.mark.parametrize("average", ["all", "example"])
@pytest.mark.parametrize("parts", [2, 3, 7])
def test_parts_of_a_batch_add_up_to_the_whole(average: Average, parts: int):
    given, data = method(average), batch()
    step, whole = Backward(given, 1, None).gradient(data, NOW)
    divided, found = Backward(given, parts, None).gradient(data, NOW)
    torch.testing.assert_close(flat(found), flat(whole), rtol=1e-9, atol=1e-12)
    for name, value in step.terms.items():
        assert divided.terms[name].item() == pytest.approx(value.item(), rel=1e-9)
    assert divided.report["loss"].item() == pytest.approx(step.report["loss"].item(), rel=1e-9)
    # equal weights of the parts would give something else
    pieces = [given(part, NOW).terms for part in data.chunk(parts)]
    shares = [len(part) / 7 for part in data.chunk(parts)]
    naive = sum(share * piece["mlm"].item() for share, piece in zip(shares, pieces, strict=True))
    assert abs(naive - step.terms["mlm"].item()) > 1e-3


@pytest.mark.parametrize("average", ["all", "example"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_two_processes_add_up_to_the_whole(average: Average, accumulate: int, monkeypatch: pytest.MonkeyPatch):
    given, data = method(average), batch()
    _, whole = Backward(given, 1, None).gradient(data, NOW)
    totals = [float(count) for count in given.counted_rows(data).values()]
    given = copy.deepcopy(given)
    monkeypatch.setattr(module, "world_size", lambda: 2)
    monkeypatch.setattr("kdx.core.distributed.world_size", lambda: 2)
    monkeypatch.setattr(module, "mean_gradients", lambda parameters: None)
    found = []
    for rank in range(2):
        waiting = iter(totals)  # the sums over both processes, in the order of the terms
        monkeypatch.setattr(module, "all_reduce_sum", lambda own, waiting=waiting: own * 0 + next(waiting))
        found.append(flat(Backward(given, accumulate, None).gradient(data.share(rank, 2), NOW)[1]))
    torch.testing.assert_close((found[0] + found[1]) / 2, flat(whole), rtol=1e-6, atol=1e-9)


def test_a_batch_that_is_not_divided_is_not_scaled(monkeypatch: pytest.MonkeyPatch):
    given, data = method("all"), batch()
    monkeypatch.setattr(given, "counted_rows", lambda batch: pytest.fail("counted for nothing"))
    Backward(given, 1, None).gradient(data, NOW)
