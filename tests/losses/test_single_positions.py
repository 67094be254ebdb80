"""Terms that compare positions say when a pair of maps has one position in common, over which nothing differs."""

from collections.abc import Callable

import pytest
import torch

from kdx.core.batch import Batch
from kdx.core.outputs import Outputs, Shapes
from kdx.core.schedule import Progress
from kdx.losses.base.pairs import Paired
from kdx.losses.features.at import AT
from kdx.losses.features.cwd import CWD
from kdx.losses.features.ft import FT
from kdx.tasks.classes import image_classes

SPEC = image_classes(3, (3, 32, 32), 1, (0.0,) * 3, (1.0,) * 3)
MAKERS: dict[str, Callable[[], Paired]] = {
    "AT": lambda: AT(["last"], 2.0),
    "CWD": lambda: CWD("last", "last", 4.0),
    "FT": lambda: FT("last", "last", 0.5, "attention", 0),
    "FT of whole factors": lambda: FT("last", "last", 0.5, "whole", 0),
}


def gradient(term: Paired, side: int) -> float:
    """The largest gradient that a term gives to a student's map of a side, beside a teacher's of 2 x 2."""
    torch.manual_seed(0)
    mine, theirs = torch.randn(4, 6, side, side, requires_grad=True), torch.randn(4, 8, 2, 2)
    logits = torch.zeros(4, 3)
    term.build(Shapes((3,), {"last": (6, side, side)}), Shapes((3,), {"last": (8, 2, 2)}), SPEC)
    batch = Batch.of_classes(torch.zeros(4, 3, 32, 32), torch.zeros(4, dtype=torch.long), torch.arange(4))
    value = term(Outputs(logits, {"last": mine}), Outputs(logits, {"last": theirs}), batch, Progress(0, 1, 1))
    (found,) = torch.autograd.grad(value.sum(), mine)
    return float(found.abs().max())


@pytest.mark.parametrize("name", MAKERS)
def test_a_notice_appears_exactly_where_nothing_is_learned(name: str, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setattr("kdx.core.notice._said", set())
    learned = gradient(MAKERS[name](), 2)
    assert learned > 1e-4 and not capsys.readouterr().err
    void = gradient(MAKERS[name](), 1) < 1e-6
    told = capsys.readouterr().err
    assert void == ("have one in common" in told)
    assert void == (name != "FT of whole factors")
