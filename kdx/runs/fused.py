"""Loaders and teacher shared by fused runs."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import torch

from kdx.config.schema import RunConfig
from kdx.core.batch import Batch
from kdx.core.tree import leaves
from kdx.data.loaders import Loaders
from kdx.data.on_device import device_loader
from kdx.data.shared_loader import SharedLoader
from kdx.models.teachers.shared_outputs import SharedOutputs
from kdx.runs.build import Light, build_light
from kdx.runs.lanes import Lanes, OneLane
from kdx.runs.teacher import Teacher, Weights

# Keys of the trainer in which fused runs may differ: none changes the data or the machine's settings
OWN = ("duration", "schedule_epochs", "precision", "compile", "ema", "log_steps", "checkpoint_seconds")

T = TypeVar("T")


def shared(config: RunConfig) -> str:
    """The part of a config that fused runs have in common, as text: data, order, augmentation, teacher, machine."""
    trainer = {key: value for key, value in config.trainer.items() if key not in OWN}
    plain = config.plain()
    parts = {key: plain[key] for key in ("dataset", "transfer", "augmentation", "data_seed", "role", "teacher")}
    return json.dumps([parts, trainer], sort_keys=True)


class FusedRuns:
    """Runs that train in turn in one process and share loaders and teacher; the first run that needs one makes it.

    All have the same `shared`.

    Args:
        size: Number of runs. A single run shares nothing.
        lanes: Streams of the runs; None for one order of all work.
    """

    def __init__(self, size: int = 1, lanes: Lanes | OneLane | None = None):
        self.size, self.lanes = size, lanes or OneLane()
        self.fingerprints: dict[str, Any] = {}  # of data sets, see `kdx.runs.reuse.record.sources`
        self._answers = SharedOutputs(self.lanes.shared)
        self._light: Light | None = None
        self._loaders: Callable[[], Loaders] | None = None
        self._weights: Callable[[], Weights] | None = None
        self._teacher: Callable[[], Teacher] | None = None

    def light(self, config: RunConfig) -> Light:
        """The light parts of a run; those of the data are shared."""
        own = build_light(config, like=self._light)
        self._light = own if self.size > 1 else None
        return own

    def loaders(self, make: Callable[[], Loaders], device: torch.device) -> Loaders:
        """Loaders with training batches on the device; each batch is read once for all runs."""

        def alone() -> Loaders:
            loaders = make()
            return replace(loaders, train=device_loader(loaders.train, device))

        if self.size == 1:
            return alone()

        def shared() -> Loaders:
            loaders = self.lanes.shared(alone)

            def hold(batch: Batch) -> None:
                self._answers.hold(leaves((batch.inputs, *batch.views)))

            return replace(loaders, train=SharedLoader(loaders.train, hold, self.lanes.shared))

        if self._loaders is None:
            self._loaders = _once(shared)
        return self._loaders()

    def weights(self, find: Callable[[], Weights]) -> Weights:
        """Files of the teacher's weights, looked up once."""
        if self.size == 1:
            return find()
        if self._weights is None:
            self._weights = _once(find)
        return self._weights()

    def teacher(self, make: Callable[[], Teacher]) -> Teacher:
        """The teacher; it computes each batch once for all runs."""
        if self.size == 1:
            return make()

        def shared() -> Teacher:
            teacher = self.lanes.shared(make)
            self._answers.share(teacher.network)
            return teacher

        if self._teacher is None:
            self._teacher = _once(shared)
        return self._teacher()


def _once(make: Callable[[], T]) -> Callable[[], T]:
    """A function that calls `make` once and returns its value each time; each call raises what `make` raised."""
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
