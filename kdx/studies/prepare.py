"""The last steps from a composed config to one that says everything about its run."""

from pathlib import Path
from typing import Any

from kdx.config.compose import Composed, Config, ConfigError, compose
from kdx.config.validate import locate, validate
from kdx.core.errors import UserError
from kdx.models.weights import sha256

# Of the data set, a teacher shares everything but the regime, which is the student's
REGIME = ("fraction", "fraction_seed", "val_fraction", "val_seed", "train_subset")
# Groups whose choice a teacher's own training shares with the run that needs it
SHARED_CHOICES = ("dataset", "recipe", "trainer", "debug")
# What depends on the machine is the same for both
SHARED_VALUES = ("device", "threads", "num_workers", "checkpoint_seconds")


def prepare(composed: Composed) -> Config:
    """Check a config and fill in what follows from it.

    A teacher that the method does not use is dropped, with the measurements against it, so that it is
    no part of the run's identity; a given checkpoint gets its checksum, and a teacher to be trained its
    own full config.

    Raises:
        ConfigError: With a line for everything that is wrong.
    """
    config = {**composed.config, "choices": composed.choices}
    config.pop("experiment", None)
    config.pop("debug", None)
    config.pop("recipe", None)
    _drop_unused(config)
    validate(config, composed.interpolated)
    _fill_checksum(config["student"], "student.checkpoint")
    if config["teacher"] is not None:
        config["teacher"] = _fill_teacher(config, composed.choices)
    return config


def _drop_unused(config: Config) -> None:
    try:
        method = locate(str(config["method"]["_target_"]))
        evaluators = {name: locate(str(node["_target_"])) for name, node in config["evals"].items()}
    except (KeyError, TypeError, ValueError):
        return  # validation says what is wrong
    if getattr(method, "uses_teacher", True):
        return
    config["teacher"] = None
    config["evals"] = {
        name: node for name, node in config["evals"].items() if not getattr(evaluators[name], "needs_teacher", False)
    }


def network_name(config: Config, role: str) -> str:
    """What a network is called: its name in timm or torchvision where it is one of theirs, else its option."""
    net = config[role]["net"]
    return str(net["name"] if "name" in net else config["choices"][role])


def weights_file(checkpoint: str, key: str) -> Path:
    """The weights that a checkpoint names: a file, or the exported student of a run's directory."""
    path = Path(checkpoint).expanduser()
    if path.is_dir():
        found = path / "student.safetensors"
        if not found.exists():
            raise UserError(f"{key}={checkpoint}: this directory has no student.safetensors; is the run finished?")
        return found
    if not path.exists():
        raise UserError(f"{key}={checkpoint}: no such file or directory")
    return path


def _fill_checksum(node: dict[str, Any], key: str) -> None:
    if node["checkpoint"] not in (None, "auto"):
        try:
            node["sha256"] = sha256(weights_file(node["checkpoint"], key))
        except UserError as error:
            raise ConfigError([str(error)]) from None


def _fill_teacher(config: Config, choices: dict[str, str | None]) -> Config:
    teacher = dict(config["teacher"])
    _fill_checksum(teacher, "teacher.checkpoint")
    if teacher["checkpoint"] == "auto":
        teacher["training"] = _teacher_training(config, teacher, choices)
    return teacher


def _teacher_training(config: Config, teacher: Config, choices: dict[str, str | None]) -> Config:
    shared = [f"{group}={choices[group]}" for group in SHARED_CHOICES if choices.get(group)]
    own = ["method=supervised", f"student={choices['teacher']}", f"seed={teacher['seed']}"]
    # given again, since a config may not compose without them, as ImageFolder's does not without a folder
    facts = [o for o in _assignments("dataset", config["dataset"]) if o.split("=")[0].split(".")[1] not in REGIME]
    facts += _assignments("student.net", teacher["net"])
    try:
        composed = compose([*shared, *own, *facts, *map(str, teacher["recipe"])])
    except ConfigError as error:
        raise ConfigError([f"teacher.recipe: {line}" for line in error.problems]) from None
    training = composed.config
    training["student"]["net"] = teacher["net"]
    training["paths"] = config["paths"]
    training["logger"] = config["logger"]
    for key in SHARED_VALUES:
        training["trainer"][key] = config["trainer"][key]
    return prepare(Composed(training, composed.choices, composed.interpolated))


def _assignments(prefix: str, node: Config) -> list[str]:
    """Overrides that set a node's plain values."""
    return [f"{prefix}.{k}={_literal(v)}" for k, v in node.items() if k != "_target_" and not isinstance(v, dict)]


def _literal(value: Any) -> str:
    """A value in Hydra's override grammar."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "[" + ",".join(map(_literal, value)) + "]"
    if isinstance(value, str):
        return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
    return repr(value)
