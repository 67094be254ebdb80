"""Values of a config that are valid by themselves and contradict each other."""

from collections.abc import Iterator

from kdx.config.identity import leaves
from kdx.config.schema import Node, RunConfig
from kdx.core.errors import UserError
from kdx.data.views.augment import Augmentation, MultiView
from kdx.engine.settings import Settings
from kdx.models.teachers.memo import MIN_BATCH
from kdx.runs.build import Light
from kdx.runs.checks.cuda_graph import misfits as cuda_graph_misfits


def wrong_durations(config: RunConfig) -> Iterator[str]:
    """An error if the length of the training is not given in exactly one unit."""
    duration = config.trainer["duration"]
    units = {unit: duration[unit] for unit in ("epochs", "steps", "examples") if duration[unit] is not None}
    if len(units) != 1:
        found = " and ".join(f"{unit}={n}" for unit, n in units.items()) or "none"
        remedy = " or ".join(f"trainer.duration.{unit}=null" for unit in units) or "trainer.duration.epochs=NUMBER"
        yield f"trainer.duration: exactly one of epochs, steps, examples is needed, found {found}; add {remedy}"


def misfits(config: RunConfig, light: Light) -> Iterator[str]:
    """Errors of values that are valid by themselves but contradict each other."""
    yield from cuda_graph_misfits(config, light.settings)
    yield from _smoothed_twice(light.augmentation, config.method)
    if config.student.checkpoint is None and config.student.checkpoint_share != 1:
        yield f"student.checkpoint_share={config.student.checkpoint_share:g} needs student.checkpoint, which is null"
    teacher = config.teacher
    if teacher is not None and teacher.optimize == "int8" and light.device.type != "cpu":
        yield f"teacher.optimize=int8 runs on a CPU alone, and this run is on {light.device}; choose bf16"
    if teacher is not None and teacher.memo:
        yield from _unmemoised(light.augmentation, light.settings)
        if light.transfer.has_foreign:
            yield "teacher.memo=true stores outputs of the training set, not those of transfer.unlabelled"
    try:
        task = light.dataset.task
    except (UserError, ValueError) as error:
        yield f"dataset: {error}"
    else:
        yield from (f"transfer.{line}" for line in light.transfer.misfits(task, light.dataset.fraction))


def _smoothed_twice(augmentation: Augmentation, method: Node) -> Iterator[str]:
    """An error if mixing and a loss both smooth the labels."""
    if augmentation.mixing is None or not augmentation.mixing.label_smoothing:
        return
    for path, value in leaves({"method": method}).items():
        if path.rpartition(".")[2] == "label_smoothing" and value:
            yield (
                f"augmentation.mixing.label_smoothing and {path} both smooth the labels, so they would be smoothed "
                "twice; set one of them to 0"
            )


def _unmemoised(augmentation: Augmentation, settings: Settings) -> Iterator[str]:
    """Reasons why a memo cannot store the teacher's outputs by view."""
    if isinstance(augmentation, MultiView):
        yield "teacher.memo=true stores outputs for one view of each example, and this augmentation makes several"
    elif augmentation.mixing is not None:
        yield "teacher.memo=true stores outputs for single examples, and this augmentation mixes two; see mixing"
    elif augmentation.num_views is None:
        yield (
            "teacher.memo=true needs a finite number of views, and this augmentation draws new ones each epoch; "
            "augmentation.cycle=30 makes 30 of each example"
        )
    if settings.batch_size < MIN_BATCH:
        yield (
            f"teacher.memo=true needs a trainer.batch_size of at least {MIN_BATCH}, found {settings.batch_size}: the "
            "bits of smaller batches depend on their size"
        )
