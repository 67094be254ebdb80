"""Checks before a run claims its folder that given weights fit their networks, by names and shapes alone."""

from collections.abc import Sequence
from pathlib import Path

import torch

from kdx.config.schema import Node, RunConfig
from kdx.models.weights import check_weights
from kdx.runs.build import build_network, inputs_of, specialised, untrained
from kdx.runs.ensemble_config import each_teacher
from kdx.runs.fill import weights_file


def check_given_weights(config: RunConfig) -> None:
    """Raise CheckpointError if a given checkpoint of the student, the teacher or a member is of another network.

    Args:
        config: A prepared config.
    """
    if config.student.checkpoint is not None:
        # a student becomes a specialist after its weights are loaded
        _check(config, config.student.net, None, weights_file(config.student.checkpoint, "student.checkpoint"))
    for own in each_teacher(config).values():
        assert own.teacher is not None
        if own.teacher.checkpoint not in (None, "auto"):
            weights = weights_file(own.teacher.checkpoint, "teacher.checkpoint")
            _check(config, own.teacher.net, own.teacher.special_classes, weights)


def _check(config: RunConfig, node: Node, classes: Sequence[int] | None, weights: Path) -> None:
    try:
        with torch.device("meta"):  # shapes without memory or initial weights
            net = specialised(build_network(untrained(node), 0, lambda: inputs_of(config)), classes)
    except Exception:  # a network that cannot be built without weights is checked when it is loaded
        return
    check_weights(net, weights)
