"""Builds the objects of a run from its prepared config."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from torch import nn

import kdx.data.numpy_stream  # noqa: F401 - registers NumPy's random stream
from kdx.config.compose import Config, ConfigError
from kdx.config.schema import Member, RunConfig
from kdx.core.errors import UserError
from kdx.core.method import Evaluator, Method
from kdx.core.seed import derive, seeded
from kdx.core.spec import InputSpec
from kdx.data.dataset import Dataset
from kdx.data.loaders import Loaders, make_loaders
from kdx.data.transfer import Transfer
from kdx.data.views.augment import Augmentation
from kdx.engine.settings import Settings
from kdx.models.between import between
from kdx.models.lazy import has_lazy, materialise
from kdx.models.own import as_network
from kdx.models.tap import plain
from kdx.models.teachers.frozen import Frozen, Statistics
from kdx.models.teachers.specialists import specialise
from kdx.models.weights import load_state, load_weights
from kdx.runs.checks.notices import notices

# Keys of a config whose objects need neither data nor weights
LIGHT = ("trainer", "optimizer", "schedule", "augmentation", "dataset", "transfer", "logger")
OF_DATA = ("augmentation", "dataset", "transfer")  # of these, those that fused runs have in common
UNTRAINED = {"pretrained": False, "weights": None}


def make(node: Config, **given: Any) -> Any:
    """Build an object from a node with a `_target_`.

    Args:
        node: The node.
        given: Arguments that the program adds to those of the node.

    Raises:
        Exception: The target's own error, without Hydra's wrapper.
    """
    try:
        built = instantiate({**node, "_partial_": True}, _convert_="all")
    except InstantiationException as error:
        raise error.__cause__ or error from None
    return built(**given)


@dataclass(frozen=True)
class Light:
    """Parts that need neither data nor weights: the checks of a config build them, and its run uses them."""

    settings: Settings
    device: torch.device
    optimizer: Any
    lr_schedule: Any
    augmentation: Augmentation
    dataset: Dataset
    transfer: Transfer
    logger: Any


def build_light(config: RunConfig, trainer: Sequence[str] = (), like: Light | None = None) -> Light:
    """Build the parts that need neither data nor weights.

    Args:
        config: Of a run.
        trainer: What is known to be wrong with `config.trainer`, which is then not built.
        like: Parts of a run with the same data, augmentation and transfer set, which both share; None builds them.

    Raises:
        ConfigError: A line for each part whose values contradict each other.
    """
    built: dict[str, Any] = {}
    problems = list(trainer)
    for part in LIGHT:
        if part == "trainer" and trainer:
            continue
        if like is not None and part in OF_DATA:
            built[part] = getattr(like, part)
            continue
        try:
            built[part] = make(getattr(config, part))
            if part == "trainer":
                built["device"] = built[part].pick_device()
        except (UserError, ValueError) as error:
            problems.append(str(error) if str(error).startswith(f"{part}.") else f"{part}: {error}")
    if problems:
        raise ConfigError(problems)
    return Light(settings=built.pop("trainer"), lr_schedule=built.pop("schedule"), **built)


def build_loaders(config: RunConfig, light: Light) -> Loaders:
    """Load the data and select its splits by the regime and the transfer set."""
    settings = light.settings
    return make_loaders(
        light.transfer.splits(light.dataset),
        light.augmentation,
        settings.batch_size,
        settings.eval_batch_size,
        stream_seed(config, "data_seed"),
        settings.num_workers,
        settings.drop_last,
        settings.channels_last,
    )


def stream_seed(config: RunConfig, key: Literal["seed", "data_seed"]) -> int:
    """The seed of a run's random streams.

    A teacher's training derives its own seed. With the student's, both would start from the same weights and see the
    same batches.
    """
    seed = getattr(config, key)
    return seed if config.role == "student" else derive(seed, "teacher")


def build_network(node: Config, seed: int, inputs: Callable[[], InputSpec] | None = None) -> nn.Module:
    """A network whose initial weights depend on its seed alone, not on the other parts of the run.

    Args:
        node: The network's node.
        seed: Seed of the initial weights.
        inputs: Gives the facts of the inputs, which lazy modules take their shapes from; None leaves them lazy.
    """
    with seeded(seed, "network"):
        net = as_network(make(node))
        if inputs is not None and has_lazy(net):
            materialise(net, inputs())
        return net


def inputs_of(config: RunConfig) -> InputSpec:
    """Facts of one input of a run's data set, before the data set is loaded."""
    return make(config.dataset).inputs


def start_student(config: RunConfig, weights: Path | None) -> nn.Module:
    """The student at the start of its run: weights of a seed or of a file, outputs of a specialist if it is one."""
    net = build_network(config.student.net, stream_seed(config, "seed"), partial(inputs_of, config))
    if weights is not None:
        fresh = None if config.student.checkpoint_share == 1 else plain(net).state_dict()
        fresh = None if fresh is None else {name: value.clone() for name, value in fresh.items()}
        _load(net, weights)
        if fresh is not None:
            load_state(net, between(fresh, plain(net).state_dict(), config.student.checkpoint_share), str(weights))
    return specialised(net, make(config.transfer).outputs)


def _load(net: nn.Module, weights: Path) -> None:
    """Load the weights of a file; a line says which part of it, if it holds several."""
    if (layout := load_weights(net, weights).get("layout")) is not None:
        notices([layout])


def build_student(config: RunConfig, weights: Path) -> nn.Module:
    """The trained student, with the weights of a file."""
    net = start_student(config, None)
    _load(net, weights)
    return net


def specialised(net: nn.Module, classes: Sequence[int] | None) -> nn.Module:
    """Turn a network of all classes into a specialist's in place; None for `classes` leaves it as it is."""
    if classes is not None:
        specialise(net, classes)
    return net


def untrained(node: Config) -> Config:
    """A network's node without its library's pretrained weights, which may need a download."""
    return {**node, **{key: value for key, value in UNTRAINED.items() if key in node}}


def build_teacher(config: RunConfig, weights: Path) -> Frozen:
    """A frozen network with the weights of a file, and with its own input statistics if the config gives them."""
    teacher = config.teacher
    assert teacher is not None
    net = build_network(untrained(teacher.net), teacher.seed, partial(inputs_of, config))
    specialised(net, teacher.special_classes)
    _load(net, weights)
    return Frozen(net, own_statistics(teacher), image_statistics(config.dataset))


def own_statistics(teacher: Member) -> Statistics | None:
    """Mean and standard deviation that a teacher's inputs have, if the config gives them."""
    if (teacher.mean is None) != (teacher.std is None):
        raise UserError("teacher.mean and teacher.std must be given together")
    return None if teacher.mean is None or teacher.std is None else (tuple(teacher.mean), tuple(teacher.std))


def image_statistics(dataset: Config) -> Statistics | None:
    """Mean and standard deviation of each channel of a data set of images; None for other inputs."""
    return (tuple(dataset["mean"]), tuple(dataset["std"])) if "mean" in dataset else None


def build_method(config: RunConfig, loaders: Loaders, student: nn.Module, teacher: nn.Module | None) -> Method:
    """The method with its networks and adapters; the run's seed sets the initial weights of the adapters."""
    given: dict[str, Any] = {"student": student, "spec": loaders.spec}
    if teacher is not None:
        given["teacher"] = teacher
    return make_method(config.method, stream_seed(config, "seed"), given)


def make_method(node: Config, seed: int, given: dict[str, Any]) -> Method:
    """Build a method from its node; each peer gets its own initial weights, derived from the seed."""
    if "peers" in node:
        node = dict(node)
        peers = enumerate(node.pop("peers"), 1)
        inputs = given["spec"].inputs
        given = {**given, "peers": [build_network(peer, derive(seed, "peer", i), lambda: inputs) for i, peer in peers]}
    with seeded(seed, "method"):
        return make(node, **given)


def build_evaluators(nodes: Mapping[str, Config], loaders: Loaders, device: torch.device) -> dict[str, Evaluator]:
    """Evaluators by name, without those of the validation split if the regime has none."""
    present = {name: node for name, node in nodes.items() if node.get("split") != "val" or "val" in loaders.evals}
    given = {"loaders": loaders.evals, "device": device, "task": loaders.spec.task}
    return {name: make(node, **given) for name, node in present.items()}
