"""How the numbers of finished runs are shown: each run says it of the metrics that it measured."""

import importlib
import pkgutil
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from kdx.core.metric import Catalogue, Metric
from kdx.runs.results import Result

COSTS = (
    Metric(name="seconds", label="seconds", digits=1, better="lower"),
    Metric(name="milliseconds_per_step", label="ms a step", digits=2, better="lower"),
    Metric(name="examples_per_second", label="examples/s", digits=0, better="higher"),
    Metric(name="parameters", label="parameters", digits=0, better="lower"),
)
"""Costs that every run records."""
RATIO = Metric(name="cost", label="cost of a step", digits=2, better="lower")
RELABELLED = {
    "KL to teacher": {"label": "KL(teacher‖student) T=1", "unit": "nats"},
    "KL from teacher": {"label": "KL(student‖teacher) T=1", "unit": "nats"},
}
COMPARED = 1  # of the costs, how many a comparison shows unless others are named


class Shown(Catalogue):
    """How the metrics of some runs are shown.

    Args:
        results: The runs.

    Attributes:
        main: Full name of the primary metric on the test set, of most runs.
    """

    def __init__(self, results: Iterable[Result]):
        tasks = [result.data["task"] for result in results if "task" in result.data]
        recorded = [Metric(**_today(entry)) for entry in unique(entry for task in tasks for entry in task["metrics"])]
        # older runs, all of classes, did not say it
        known = recorded or [*_built_in()]
        super().__init__([*known, *COSTS, RATIO])
        first = [task["primary"] for task in tasks] or [known[0].name]
        self.main = f"test/{Counter(first).most_common(1)[0][0]}"

    def order(self, names: Iterable[str]) -> list[str]:
        """Names of metrics, the main ones of the test set first, costs last, others in their own order."""
        listed = [metric.name for metric in self.metrics]

        def place(name: str) -> tuple[bool, bool, bool, int]:
            metric, cost = self[name], name in listed and "/" not in name
            shown = metric.shown and ("test/" in name) and not name.startswith("teacher/")
            index = next((i for i, of in enumerate(listed) if of.split("/")[-1] == name.split("/")[-1]), len(listed))
            return cost, not shown, name.split("/")[0] not in ("test", "val", "fidelity"), index

        return sorted(dict.fromkeys(names), key=place)

    def compared(self, name: str) -> bool:
        """Whether a comparison shows a metric unless others are named."""
        own = len(name.split("/")) < 3 or name.startswith("fidelity/")
        return own or (self.in_full(name) and self[name].shown)

    def record(self, name: str) -> dict[str, Any]:
        """How a metric is shown, as JSON values for the page of a report."""
        metric = self[name]
        return {
            "name": name,
            "label": metric.directed,
            "scale": metric.scale,
            "digits": metric.digits,
            "better": metric.sign,
            "shown": metric.shown,
        }


def _today(entry: dict[str, Any]) -> dict[str, Any]:
    """An entry of an earlier version, whose labels did not name the direction of a divergence, under today's label."""
    return {**entry, **RELABELLED[entry["label"]]} if entry["label"] in RELABELLED else entry


def unique(entries: Iterable[dict[str, Any]]) -> Sequence[dict[str, Any]]:
    """The first entry of each name, in order."""
    first: dict[str, dict[str, Any]] = {}
    for entry in entries:
        first.setdefault(entry["name"], entry)
    return list(first.values())


@cache
def _built_in() -> Sequence[Metric]:
    """The metrics of classification and of all evaluators."""
    import kdx.evals
    from kdx.core.method import Evaluator
    from kdx.evals.fidelity import fidelity_metrics
    from kdx.tasks.classes import Classes

    modules = [importlib.import_module(f"kdx.evals.{m.name}") for m in pkgutil.iter_modules(kdx.evals.__path__)]
    parts = [part for module in modules for part in vars(module).values() if isinstance(part, type)]
    evaluators = [part for part in parts if issubclass(part, Evaluator) and isinstance(part.described, tuple)]
    described = [metric for evaluator in evaluators for metric in evaluator.described if "/" in metric.name]
    return (*Classes(2).described, *fidelity_metrics(Classes(2)), *described)
