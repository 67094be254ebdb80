"""Protocols last, best_on_test and val_selected on a sequence with known results."""

import pytest

from kdx.core.metric import Metric
from kdx.engine.record.selection import Selection

TOP1 = Metric(name="top1", label="top-1", unit="%", better="higher")

# epoch, test, validation: the best of each is another epoch, and both are reached twice
SEQUENCE = [(1, 0.5, 0.2), (2, 0.9, 0.4), (3, 0.7, 0.8), (4, 0.9, 0.8), (5, 0.6, 0.7)]


def play(every: int, until: int = 5, start: Selection | None = None, since: int = 1) -> tuple[Selection, list[int]]:
    selection, chosen = start or Selection(TOP1), []
    for epoch, test, val in SEQUENCE:
        if since <= epoch <= until and (epoch % every == 0 or epoch == 5):
            metrics = {"test/top1": test, "val/top1": val, "test/nll": float(epoch)}
            if selection.update(metrics, float(epoch)):
                chosen.append(epoch)
    return selection, chosen


def test_the_three_protocols_are_kept_apart():
    selection, chosen = play(1)
    assert (selection.last["epoch"], selection.last["test/top1"]) == (5, 0.6)
    assert (selection.best_on_test["epoch"], selection.best_on_test["test/top1"]) == (2, 0.9)
    assert (selection.val_selected["epoch"], selection.val_selected["test/top1"]) == (3, 0.7)
    assert selection.val_selected["test/nll"] == 3 and chosen == [1, 2, 3]


@pytest.mark.parametrize("cut", [1, 2, 3, 4])
def test_saved_and_loaded_it_goes_on(cut: int):
    first, _ = play(1, until=cut)
    resumed = Selection(TOP1)
    resumed.load_state_dict(first.state_dict())
    assert play(1, start=resumed, since=cut + 1)[0] == play(1)[0]


def test_metrics_of_the_end_join_the_last_line_alone():
    selection, _ = play(2)
    selection.update({"fidelity/test/kl": 1.0}, 5.0)
    assert selection.last["fidelity/test/kl"] == 1.0 and selection.last["test/top1"] == 0.6
    assert "fidelity/test/kl" not in selection.best_on_test


def test_without_a_validation_split_nothing_is_selected():
    selection = Selection(TOP1)
    assert not selection.update({"test/top1": 0.1}, 1.0)
    assert selection.val_selected is None and selection.best_on_test["epoch"] == 1.0
    assert Selection(TOP1).best_on_test is None


def test_an_error_is_better_where_it_is_lower():
    rmse = Metric(name="rmse", label="RMSE", better="lower")
    falling, rising = Selection(rmse), Selection(TOP1)
    for epoch, value in enumerate((3.0, 1.0, 2.0)):
        chosen = falling.update({"test/rmse": value, "val/rmse": value}, epoch)
        assert chosen == (epoch < 2)
        rising.update({"test/top1": -value}, epoch)
    assert falling.best_on_test == falling.val_selected == {"test/rmse": 1.0, "val/rmse": 1.0, "epoch": 1}
    assert rising.best_on_test == {"test/top1": -1.0, "epoch": 1}  # the same numbers turned round
    nothing = Selection(rmse)
    nothing.update({"val/rmse": float("nan")}, 0)
    assert not nothing.update({"val/rmse": float("nan")}, 1)
