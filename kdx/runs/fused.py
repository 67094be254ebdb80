"""What runs that take turns in one process have in common."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import torch

from kdx.config.compose import Config
from kdx.core.tree import leaves
from kdx.data.loaders import Loaders
from kdx.data.on_device import OnDevice
from kdx.data.shared_loader import SharedLoader
from kdx.models.teachers.shared_outputs import SharedOutputs
from kdx.runs.teacher import Teacher

# What runs of one company may differ in, of their trainer: none of it changes the data or the machine's settings
OWN = ("duration", "schedule_epochs", "precision", "compile", "ema", "log_steps", "checkpoint_seconds")

T = TypeVar("T")


def shared(config: Config) -> str:
    """What a run would share with others, as text: data, their order and augmentation, the teacher, the machine."""
    trainer = {key: value for key, value in config["trainer"].items() if key not in OWN}
    parts = {key: config[key] for key in ("dataset", "transfer", "augmentation", "data_seed", "role", "teacher")}
    return json.dumps([parts, trainer], sort_keys=True)


class Company:
    """The runs that train in turn, of which all have the same `shared`; the first that needs a common part makes it.

    Args:
        size: How many there are. A run alone shares nothing and remembers nothing.
    """

    def __init__(self, size: int = 1):
        self.size = size
        self._answers = SharedOutputs()
        self._loaders: Callable[[], Loaders] | None = None
        self._teacher: Callable[[], Teacher] | None = None

    def loaders(self, make: Callable[[], Loaders], device: torch.device) -> Loaders:
        """The loaders, whose training batches are on the device; they are read once for all."""

        def alone() -> Loaders:
            loaders = make()
            return replace(loaders, train=OnDevice(loaders.train, device))

        if self.size == 1:
            return alone()

        def shared() -> Loaders:
            loaders = alone()
            train = SharedLoader(loaders.train, lambda batch: self._answers.hold(leaves((batch.inputs, *batch.views))))
            return replace(loaders, train=train)

        if self._loaders is None:
            self._loaders = _once(shared)
        return self._loaders()

    def teacher(self, make: Callable[[], Teacher]) -> Teacher:
        """The teacher; it answers once for all."""
        if self.size == 1:
            return make()

        def shared() -> Teacher:
            teacher = make()
            self._answers.share(teacher.network)
            return teacher

        if self._teacher is None:
            self._teacher = _once(shared)
        return self._teacher()


def _once(make: Callable[[], T]) -> Callable[[], T]:
    """Make something at the first call; if that fails, all calls fail the same way."""
    made: list[T] = []
    failed: list[Exception] = []

    def get() -> T:
        if failed:
            raise failed[0]
        if not made:
            try:
                made.append(make())
            except Exception as error:
                failed.append(error)
                raise
        return made[0]

    return get
