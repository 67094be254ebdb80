"""A dry run: build a run's parts on made-up facts, so that errors are reported before anything loads or trains.

Called by `prepare`: for a run, for each teacher's training, and for every row of a study before the first one starts.
It must refuse a config that the run would refuse later, and no other: `tests/config/test_prepare.py`. It draws from
its own random streams and writes nothing, so a change here never changes the numbers of a run.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from kdx.config.compose import ConfigError
from kdx.config.schema import Member, Node, RunConfig, Teacher
from kdx.core.errors import UserError
from kdx.core.method import Method
from kdx.core.seed import seeded
from kdx.core.spec import DataSpec, Tokens
from kdx.core.task import Task
from kdx.data.dataset import ImageDataset
from kdx.data.units import check_units
from kdx.data.views.augment import MultiView
from kdx.models.build import input_statistics
from kdx.models.teachers.black_box import BlackBoxTeacher
from kdx.models.teachers.frozen import Frozen, Statistics
from kdx.runs.build import (
    UNTRAINED,
    Light,
    build_light,
    image_statistics,
    make,
    make_method,
    own_statistics,
    specialised,
    untrained,
)
from kdx.runs.checks.built import build_checked, teacher_key
from kdx.runs.checks.cuda_graph import unrecordable
from kdx.runs.checks.distributed import indivisible
from kdx.runs.checks.networks import Data, is_own, short_reason
from kdx.runs.checks.notices import notices
from kdx.runs.checks.step import check_step
from kdx.runs.checks.task_fit import unfit
from kdx.runs.checks.text_fit import too_long
from kdx.runs.ensemble_config import each_teacher, ensemble

# size of a training set that is large enough for every term; the real size is checked after loading
EXAMPLES = 65536
# input statistics that differ by less are equal up to rounding
CLOSE = 0.01

_passed: set[str] = set()


def rehearse(config: RunConfig, light: Light | None = None) -> None:
    """Build networks, method, update and evaluators as a run does, but without data and without weights.

    Without it, a term that does not work with its networks would be reported only after the teacher's training.

    Args:
        config: A config whose values are valid by themselves.
        light: Its light parts, if they are built already.

    Raises:
        ConfigError: Parts do not fit each other.
    """
    keys = ("dataset", "transfer", "student", "teacher", "method", "update", "optimizer", "schedule", "evals")
    keys += ("augmentation",)
    plain = config.plain()
    options = [plain["trainer"][key] for key in ("compile", "cuda_graph")]
    parts = json.dumps([options, {key: plain[key] for key in keys}], sort_keys=True)
    if parts in _passed:  # the runs of a study that differ in seeds alone need one check
        return
    try:
        with seeded(0, "rehearsal"), torch.device("cpu"), _one_thread():
            problems = _put_together(config, light or build_light(config))
    except (UserError, ValueError) as error:
        raise ConfigError(str(error).splitlines()) from None
    except Exception as error:
        raise ConfigError([f"the parts of this run do not work together: {short_reason(error)}"]) from error
    if problems:
        raise ConfigError(problems)
    _passed.add(parts)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Use one thread: on a few examples, several threads spend seconds on waiting if the machine is busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _put_together(config: RunConfig, light: Light) -> list[str]:
    if problems := list(unfit(config, light)):
        return problems
    dataset, transfer, statistics = light.dataset, light.transfer, image_statistics(config.dataset)
    task = transfer.task(dataset.task)
    spec = DataSpec(task, dataset.inputs, EXAMPLES, transfer.marks(EXAMPLES, dataset.task))
    alone = build_checked(config, Data(dataset.name, dataset.inputs, dataset.task))
    if problems := list(too_long(alone, dataset.inputs)):
        return problems
    student = specialised(alone["student.net"], transfer.outputs)
    given: dict[str, Any] = {"student": student, "spec": spec}
    teachers = _teachers(config)
    for own in teachers.values() if isinstance(dataset, ImageDataset) and not dataset.has_own_units else ():
        if own.mean and own.std:
            check_units(own.mean, own.std, "teacher.mean and teacher.std")
    nets = {name: _frozen(alone[teacher_key(name)], own, statistics) for name, own in teachers.items()}
    if config.teacher is not None:
        given["teacher"] = _together(config.teacher, nets, task)
    try:
        method = _method(config, given)
    except (UserError, ValueError):
        _without_features(config, given, nets)
        raise
    _within_limits(config, given, nets)
    rate = {"optimizer": light.optimizer, "lr_schedule": light.lr_schedule}
    update = make(config.update, method=method, autocast=None, **rate)
    rate["optimizer"].try_step()

    splits = ("test", "train", "val") if dataset.has_val else ("test", "train")
    problems = [*indivisible(config, method, spec), *_unseen(config, light, method)]
    problems += unrecordable(config, light, method, update, spec)
    # parts that read images alone show it in a step on texts
    if not problems and (any(map(is_own, alone.values())) or isinstance(dataset.inputs, Tokens)):
        check_step(config, light, method, update, spec)
    if light.settings.compile and not method.compilable:
        problems.append(
            f"method={config.choices['method']} needs second derivatives or forward-mode differentiation of the "
            "student, which torch.compile lacks; set trainer.compile=false"
        )
    roles = method.models()
    for name, node in config.evals.items():
        if node.get("split") == "val" and "val" not in splits:
            if name != "val":  # the default evaluator "val" is idle without a validation split
                problems.append(f"evals.{name}.split: there is no validation split; dataset.val_fraction=0.1 cuts one")
            continue
        if "model" in node and node["model"] not in roles:
            there = ", ".join(roles)
            problems.append(f"evals.{name}.model: this method has no network '{node['model']}'; it has: {there}")
        try:
            evaluator = make(node, loaders=dict.fromkeys(splits, ()), device=torch.device("cpu"), task=task)
            problems += (f"evals.{name}.{line}" for line in evaluator.misfits(task))
        except (UserError, ValueError) as error:
            problems.append(f"evals.{name}: {error}")
        except Exception as error:  # an evaluator may need the examples, which are not loaded yet
            notices([f"evals.{name} could not be checked before training: {short_reason(error)}"])
    return problems


def _unseen(config: RunConfig, light: Light, method: Method) -> Iterator[str]:
    """An error if batches have fewer views of each example than the method needs."""
    augmentation = light.augmentation
    made = 1 + len(augmentation.further) if isinstance(augmentation, MultiView) else 1
    if method.num_views > made:
        yield (
            f"method={config.choices['method']} needs {method.num_views} views of each example, and the "
            f"augmentation makes {made}; augmentation=two_views (for images in bytes) and augmentation=two_shifts "
            "make two"
        )


def _method(config: RunConfig, given: dict[str, Any]) -> Method:
    node = config.method
    if "peers" in node:
        node = {**node, "peers": [untrained(peer) for peer in node["peers"]]}
    return make_method(node, 0, given)


def _teachers(config: RunConfig) -> dict[str, Teacher]:
    """Each teacher alone, as in `each_teacher`."""
    return {name: own.teacher for name, own in each_teacher(config).items() if own.teacher is not None}


def _together(teacher: Teacher, nets: Mapping[str, nn.Module], task: Task) -> nn.Module:
    return nets[""] if "" in nets else ensemble(teacher, nets, task)


def _within_limits(config: RunConfig, given: dict[str, Any], nets: Mapping[str, nn.Module]) -> None:
    """Raise UserError if a method reads outputs that a memo or an int8 teacher does not give."""
    shown = dict(nets)
    for name, own in _teachers(config).items():
        assert config.teacher is not None
        for roles, why in _limits(own):
            shown[name] = BlackBoxTeacher(shown[name], roles)
            try:
                _method(config, given | {"teacher": _together(config.teacher, shown, given["spec"].task)})
            except (UserError, ValueError) as error:
                raise UserError(f"{why}, and the method needs more: {error}") from error


def _limits(teacher: Member) -> Iterator[tuple[Sequence[str], str]]:
    """For each setting that leaves out features of a teacher: the features that remain, and the reason."""
    if teacher.optimize == "int8":
        yield (), "teacher.optimize=int8 gives a teacher's logits alone, no features"
    if teacher.memo:
        kept = " and ".join(["logits", *teacher.memo_features])
        yield teacher.memo_features, f"teacher.memo=true stores a teacher's {kept} (teacher.memo_features), no maps"


def _without_features(config: RunConfig, given: dict[str, Any], nets: dict[str, Frozen]) -> None:
    """Raise UserError if a method would work with an ensemble whose features come from one member."""
    settings = config.teacher
    if settings is None or "" in nets or not nets or settings.features is not None:
        return
    name = next(iter(nets))
    try:
        _method(config, given | {"teacher": _together(replace(settings, features=name), nets, given["spec"].task)})
    except (UserError, ValueError):
        return
    raise UserError(
        f"method={config.choices['method']} reads features, which one member of an ensemble provides: name it, as "
        f"in teacher.features={name}"
    ) from None


def _frozen(net: nn.Module, teacher: Member, given: Statistics | None) -> Frozen:
    own = own_statistics(teacher)
    if teacher.checkpoint is None and own is None and given is not None:
        _same_statistics(net, teacher.net, given)
    return Frozen(specialised(net, teacher.special_classes), own, given)


def _same_statistics(net: nn.Module, node: Node, given: Statistics) -> None:
    """Raise UserError if a teacher's pretrained weights expect other input statistics than the data set's."""
    wanted = input_statistics(net) if any(node.get(key) for key in UNTRAINED) else None
    if wanted is None:
        return
    for mine, theirs in zip(wanted, given, strict=True):
        if len(mine) != len(theirs) or max(abs(a - b) for a, b in zip(mine, theirs, strict=True)) > CLOSE:
            mean, std = (f"[{','.join(f'{v:g}' for v in values)}]" for values in wanted)
            raise UserError(
                f"the pretrained weights of this teacher expect inputs of mean {mean} and std {std}, and those of the "
                f"data set are {list(given[0])} and {list(given[1])}; set teacher.mean={mean} teacher.std={std}"
            )
