"""Checks whether the parts of a run fit the task of its data set, before anything loads."""

from collections.abc import Iterator
from typing import Any

from kdx.config.schema import RunConfig
from kdx.config.validate import locate
from kdx.core.errors import listed
from kdx.core.task import BOXES, CLASSES, PIXELS, Task
from kdx.data.views.augment import PLAIN
from kdx.losses.wrappers.over_rows import OverRows
from kdx.runs.build import Light
from kdx.runs.checks.text_fit import text_misfits
from kdx.runs.ensemble_config import misfits


def unfit(config: RunConfig, light: Light) -> Iterator[str]:
    """A line for each part of a config that does not fit the task of its data set.

    Args:
        config: A config whose values are valid by themselves.
        light: Its light parts.
    """
    name, task = light.dataset.name, light.dataset.task
    for role, net in (("student", config.student.net), ("teacher", config.teacher.net if config.teacher else {})):
        if "num_classes" in net and net["num_classes"] != task.num_outputs:
            yield f"{role}.net.num_classes must be {task.num_outputs} for dataset={name}, found {net['num_classes']}"
        channels = config.dataset.get("input_shape", [None])[0]
        if str(net.get("_target_")).startswith("kdx.") and channels not in (None, net.get("in_channels", channels)):
            yield f"{role}.net.in_channels must be {channels} for dataset={name}, found {net['in_channels']}"
    yield from text_misfits(config, light)
    if task.kind == CLASSES:
        return  # every part of kdx fits classes; own parts are checked once they are built
    needs: dict[str, list[str]] = {}
    for part, of in _parts(config.method, task):
        if of.fits(part) is not None and part.__name__ not in needs.setdefault(" or ".join(sorted(part.tasks)), []):
            needs[" or ".join(sorted(part.tasks))].append(part.__name__)
    if needs:
        told = "; ".join(
            f"{listed(names)} {'needs' if len(names) == 1 else 'need'} {kinds}" for kinds, names in needs.items()
        )
        yield f"method={config.choices['method']} does not fit dataset={name}, which has {task.kind}: {told}"
    if light.augmentation.mixing is not None:
        yield f"augmentation.mixing needs a task with classes, and dataset={name} has {task.kind}; augmentation=none"
    if task.kind == PIXELS and light.augmentation != PLAIN:
        yield f"augmentation moves pixels, but not the classes of dataset={name}; set augmentation=none"
    for key, node in config.evals.items():
        if reason := task.fits(locate(str(node["_target_"]))):
            yield f"evals.{key}: {reason}"
    teacher = config.teacher
    if teacher is None:
        return
    yield from misfits(teacher, task, name)
    if task.kind == BOXES and any(own.memo for own in (teacher.members or {"": teacher}).values()):
        yield f"teacher.memo=true stores one vector for each view, and dataset={name} has boxes; set teacher.memo=false"
    for form in dict.fromkeys(own.optimize for own in (teacher.members or {"": teacher}).values()):
        if form != "exact":
            yield (
                f"teacher.optimize={form} is verified by predicted classes, and dataset={name} has {task.kind}; "
                "set teacher.optimize=exact"
            )


def _parts(node: Any, task: Task) -> Iterator[tuple[Any, Task]]:
    """The classes in a node that have an attribute `tasks`, outer ones first, each with the task that it sees."""
    if isinstance(node, dict):
        part = locate(str(node["_target_"])) if "_target_" in node else None
        if hasattr(part, "tasks"):
            yield part, task
        inner = task.each_row or task if part is OverRows else task
        for value in node.values():
            yield from _parts(value, inner)
    elif isinstance(node, list):
        for value in node:
            yield from _parts(value, task)
