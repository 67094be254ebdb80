"""Formats a result for the terminal."""

import re

from kdx.runs.results import Result
from kdx.tables.metrics import Shown

OWN = re.compile(r"((fidelity|derivatives)/)?test/[^/]+")  # of the student on the test set


def show(result: Result) -> str:
    """The result's main metrics with their protocol, the speed, and the folder of the run."""
    data, known = result.data, Shown([result])
    main, last = known[known.main], data["metrics"]["last"]
    lines = [f"{data['name']}"]
    for name in known.order(last):
        metric = known[name]
        if metric.shown and OWN.fullmatch(name):
            lines.append(f"  {metric.heading:<30}{metric.show(last[name]):>8}")
    best = result.metric(known.main, "best_on_test")
    epoch = result.metric("epoch", "best_on_test")
    if best is not None:
        lines.append(f"  protocol: last epoch (best on test {main.show(best)} at epoch {epoch:g})")
    teacher = data["teacher"]
    if teacher is not None:
        value = teacher.get(known.main)
        reached = "" if value is None else f" {main.label} {main.show(value)} {main.unit}".rstrip() + ","
        lines.append(f"  teacher {teacher['net']}:{reached} sha256 {teacher['sha256'][:12]}")
    beside = f", beside {data['fused'] - 1} others" if "fused" in data and data["fused"] > 1 else ""
    speed = f"{data['seconds']:.1f} s, {data['examples_per_second']:.0f} examples/s"
    lines.append(f"  {speed}{beside}, {data['device']['name']}")
    lines.append(f"  {result.folder}")
    return "\n".join(lines)
