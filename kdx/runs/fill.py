"""Fills in values that a config implies: networks of peers, checksums of files, normalised folders.

Each function changes a config in place and returns a line for each error. `kdx.runs.prepare` calls them.
"""

import os
from pathlib import Path
from typing import Any

from kdx.config.compose import Config
from kdx.config.identity import experiment_hash
from kdx.config.networks import network_node
from kdx.config.past import read_config
from kdx.core.errors import DamagedError, UserError, reason, shown
from kdx.engine.optim.ema import Averaging
from kdx.models.weight_files import split_name
from kdx.models.weights import sha256, sha256_of
from kdx.runs.checksums import read_checked
from kdx.runs.folder import CONFIG, STUDENT, is_done


def weights_file(checkpoint: str, key: str) -> Path:
    """The weights file of a checkpoint: the file itself, FILE::NAME, or the exported student of a run's directory."""
    if not checkpoint.strip():
        raise UserError(f"{key} is empty; give a file, a run's directory or null")
    path = Path(checkpoint).expanduser()
    file, name = split_name(path)
    if name and file.is_dir():
        raise UserError(f"{key}={shown(checkpoint)}: a run exports one network, so leave out ::{shown(name)}")
    if path.is_dir():
        found = path / STUDENT
        if not found.exists():
            raise UserError(f"{key}={checkpoint}: this directory has no student.safetensors; is the run finished?")
        return found
    if not file.exists():
        raise UserError(f"{key}={shown(checkpoint)}: no such file or directory")
    if not file.is_file():
        raise UserError(f"{key}={shown(checkpoint)}: not a regular file")
    return path


def fill_peers(config: Config) -> list[str]:
    """Replace names in `method.peers` by the networks' nodes, so that these are part of the run's identity."""
    method, student = config["method"], config["student"]
    words = method.get("peers") if isinstance(method, dict) else None
    if not isinstance(words, list) or not isinstance(student, dict):
        return []  # validation reports the error
    peers, problems = [], []
    for i, word in enumerate(words):
        try:
            peers.append(network_node(word, student["net"], config["dataset"]))
        except UserError as error:
            problems.append(f"method.peers[{i}]: {error}")
    if not problems:
        config["method"] = {**method, "peers": peers}
    return problems


def fill_checksums(config: Config) -> list[str]:
    """Add the checksum and the experiment of each given checkpoint: the student's, the teacher's or its members'."""
    problems: list[str] = []
    config["student"] = _with_checksum(config["student"], "student", problems)
    teacher = config["teacher"]
    if isinstance(teacher, dict) and teacher.get("members"):
        members = {name: _with_checksum(own, "teacher", problems) for name, own in teacher["members"].items()}
        config["teacher"] = {**teacher, "members": members}
    else:
        config["teacher"] = _with_checksum(teacher, "teacher", problems)
    return problems


def _with_checksum(node: Any, role: str, problems: list[str]) -> Any:
    if not isinstance(node, dict) or not isinstance(node.get("checkpoint"), str) or node["checkpoint"] == "auto":
        return node  # validation reports errors
    try:
        checksum = sha256(weights_file(node["checkpoint"], f"{role}.checkpoint"))
        experiment = _experiment_of(Path(node["checkpoint"]))
    except (UserError, OSError) as error:
        problems.append(reason(error))
        return node
    # a teacher with given weights draws nothing, so its seed must not change the identity
    unseeded = {"seed": 0} if role == "teacher" else {}
    return {**node, **unseeded, "sha256": checksum, "experiment": experiment}


def _experiment_of(checkpoint: Path) -> str | None:
    """Hash of the experiment that trained a checkpoint; None if the checkpoint is not in a run's directory.

    Raises:
        DamagedError: The run is finished, and its config is damaged.
    """
    path = checkpoint.expanduser()
    folder = path if path.is_dir() else path.parent
    if is_done(folder):
        read_checked(folder, CONFIG)
    elif not (folder / CONFIG).is_file():
        return None
    try:
        return experiment_hash(read_config(folder / CONFIG))
    except DamagedError:
        if is_done(folder):
            raise
        return None  # a file of that name that is not the config of a run


def fill_average(config: Config) -> None:
    """Give `trainer.ema` its one form: a node with a `_target_`, or a number where there is no warm-up."""
    trainer = config.get("trainer")
    if not isinstance(trainer, dict) or not isinstance(trainer.get("ema"), dict):
        return
    ema = {"_target_": f"{Averaging.__module__}.{Averaging.__qualname__}", **trainer["ema"]}
    plain = ema.keys() == {"_target_", "decay", "warmup"} and ema["warmup"] is False
    config["trainer"] = {**trainer, "ema": ema["decay"] if plain else ema}


def fill_images(config: Config) -> list[str]:
    transfer = config.get("transfer")
    if not isinstance(transfer, dict):
        return []  # validation reports the error
    images = transfer.get("unlabelled")
    if not isinstance(images, dict) or not isinstance(images.get("path"), str):
        return []
    path = Path(images["path"]).expanduser()
    if not path.exists():
        return [f"transfer.unlabelled.path={images['path']}: no such file or directory"]
    config["transfer"] = {**transfer, "unlabelled": {**images, "sha256": sha256_of(path)}}
    return []


def fill_folders(config: Config) -> list[str]:
    """Normalise the folders of data sets: `plain`, `./plain`, `plain/` and `root/plain` are one data set."""
    problems = []
    if isinstance(dataset := config.get("dataset"), dict):
        config["dataset"] = _with_plain_folder(dataset, "dataset", problems)
    transfer = config.get("transfer")
    images = transfer.get("unlabelled") if isinstance(transfer, dict) else None
    if isinstance(transfer, dict) and isinstance(images, dict) and isinstance(images.get("dataset"), dict):
        other = _with_plain_folder(images["dataset"], "transfer.unlabelled.dataset", problems)
        config["transfer"] = {**transfer, "unlabelled": {**images, "dataset": other}}
    return problems


def _with_plain_folder(dataset: Config, key: str, problems: list[str]) -> Config:
    root, given = dataset.get("root"), dataset.get("folder")
    if not isinstance(root, str) or not isinstance(given, str):
        return dataset  # synthetic data has no folder; validation reports other errors
    whole = os.path.abspath(os.path.join(os.path.expanduser(root), os.path.expanduser(given)))
    folder = os.path.relpath(whole, os.path.abspath(os.path.expanduser(root)))
    if folder.split(os.sep)[0] in (os.pardir, os.curdir):
        parent, name = os.path.split(whole)
        problems.append(
            f"{key}.folder={given} is no folder inside {key}.root; write {key}.root={parent} {key}.folder={name}"
        )
    changes = {"folder": folder}
    if dataset.get("name") == given:
        changes["name"] = folder
    if isinstance(test := dataset.get("test_folder"), str):
        changes["test_folder"] = os.path.relpath(os.path.join(whole, test), whole)
    return {**dataset, **changes}
