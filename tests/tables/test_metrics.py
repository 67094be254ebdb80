"""The order and names in which the metrics of several runs are shown."""

from types import SimpleNamespace

from kdx.core.metric import Catalogue
from kdx.evals.derivatives import Derivatives
from kdx.evals.label_thresholds import LabelThresholds
from kdx.metrics.fidelity import ValueFidelity
from kdx.tables.metrics import Shown
from kdx.tasks.labels import Labels


def test_a_metric_of_one_run_alone_does_not_move_the_metrics_that_all_have():
    task = Labels(3)
    shared = [metric.record() for metric in task.described]
    own = [*shared, *(metric.record() for metric in LabelThresholds.described)]
    recorded = [{"primary": task.primary.name, "metrics": metrics} for metrics in (own, shared)]
    shown = Shown([SimpleNamespace(data={"task": task}) for task in recorded])  # pyright: ignore[reportArgumentType]
    names = [f"test/{metric.name}" for metric in task.described]
    main = [f"test/{metric.name}" for metric in task.described if metric.shown]
    assert len(main) >= 2
    assert shown.order([*reversed(names), "thresholds/test/macro_f1"])[: len(main)] == main
    assert shown.order(names)[0] == shown.main


def test_a_metric_with_a_full_name_is_distinguished_from_one_of_a_role():
    known = Catalogue([*Labels(3).described, *LabelThresholds.described])
    assert known.in_full("thresholds/test/micro_f1")
    assert not known.in_full("teacher/test/micro_f1")


def test_no_two_measurements_of_one_run_have_the_same_heading():
    headings = [metric.heading for metric in (*ValueFidelity.described, *Derivatives.described)]
    assert len(set(headings)) == len(headings)
