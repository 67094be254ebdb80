"""The training loop: step, then log, evaluate and save when due."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import torch
from torch import nn

import kdx.data.numpy_stream  # noqa: F401 - registers NumPy's random stream
from kdx.core.batch import Batch
from kdx.core.distributed import all_gather_values, from_leader, is_leader, rank, world_size
from kdx.core.errors import UserError
from kdx.core.method import Evaluator, Method
from kdx.core.outputs import Step
from kdx.core.schedule import Progress
from kdx.core.seed import get_rng_state, seeded, set_rng_state
from kdx.core.task import Task
from kdx.engine.checkpoint import Checkpoints
from kdx.engine.clock import Clock
from kdx.engine.finite import check_finite, infinite, magnitude
from kdx.engine.optim.ema import Ema
from kdx.engine.record.bar import Bar
from kdx.engine.record.log import Log
from kdx.engine.record.meter import Meter
from kdx.engine.record.selection import Selection


class Update(Protocol):
    """Takes one optimizer step."""

    @property
    def lr(self) -> float: ...

    def __call__(self, batch: Batch, progress: Progress) -> Step: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class TrainLoader(Protocol):
    """Training batches as a pure function of epoch and step; a resumed run needs no state of it."""

    steps_per_epoch: int

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]: ...


class Trainer:
    """Trains a method for the duration of its clock; continues from a loaded checkpoint.

    Args:
        method, update, loader, evaluators, clock, log, checkpoints, bar: The parts.
        task: The data set's task: its training metric, and the metric that epochs are compared by.
        device: Device of the networks; batches are moved to it.
        ema: Average of the student, evaluated and exported in its place; None for none.
        log_steps: Optimizer steps between two lines of training metrics.
        checkpoint_seconds: Minimum time between two checkpoints, in seconds.
        on_selected: Called with the student when the validation metric reaches a new best.
    """

    def __init__(
        self,
        *,
        method: Method,
        update: Update,
        loader: TrainLoader,
        evaluators: Mapping[str, Evaluator],
        clock: Clock,
        log: Log,
        checkpoints: Checkpoints,
        bar: Bar,
        task: Task,
        device: torch.device,
        ema: Ema | None,
        log_steps: int,
        checkpoint_seconds: float,
        on_selected: Callable[[nn.Module], None],
    ):
        self.method, self.update, self.loader, self.evaluators = method, update, loader, evaluators
        self.clock, self.log, self.checkpoints, self.bar = clock, log, checkpoints, bar
        self.device, self.ema = device, ema
        self.log_steps, self.checkpoint_seconds, self.on_selected = log_steps, checkpoint_seconds, on_selected
        self.meter, self.selection = Meter(task), Selection(task.primary)
        self.seconds = self.step_seconds = 0.0
        self.examples = 0
        self.together = 1  # maximum number of runs fused with this one; its seconds depend on them
        self.threads = [torch.get_num_threads()]  # of the CPU; a number for each resume with others
        self._infinite = infinite(self.deliverable)  # by construction, such as a mask of -inf

    def fit(self) -> Selection:
        """Train to the end. Raises NonFiniteError if a term is NaN or infinite."""
        for _ in self.steps():
            pass
        return self.selection

    def steps(self) -> Iterator[None]:
        """Train to the end as a generator that yields after each step; time outside the generator is not counted.

        Raises:
            NonFiniteError: A term, or a weight after the last step, is NaN or infinite.
        """
        self.method.train()
        clock, started, saved = self.clock, time.perf_counter() - self.seconds, time.perf_counter()
        logged, logged_examples = time.perf_counter(), self.examples
        self.bar.start(self.examples)
        while not clock.done:
            mark = self._stopwatch()
            for batch in self.loader.epoch(*clock.position):
                batch = batch.to(self.device)
                step = self.update(batch, clock.progress())
                if self.ema is not None:
                    self.ema.update(clock.step + 1)
                self.meter.add(clock.step, step, batch)
                clock.step, self.examples = clock.step + 1, self.examples + batch.total
                self.bar.advance(batch.total)

                line: dict[str, float] = {}
                if clock.step % self.log_steps == 0 or clock.done:
                    line |= self.meter.read() | {"train/lr": self.update.lr}
                    now = time.perf_counter()
                    line["time/examples_per_second"] = (self.examples - logged_examples) / (now - logged)
                    logged, logged_examples = now, self.examples
                    self.bar.show(line)
                self.step_seconds += self._stopwatch() - mark
                if clock.done:
                    check_finite(self.deliverable, self._infinite)
                line |= self.evaluate()
                self.seconds = time.perf_counter() - started
                if line:
                    self._check_agreement()
                    self.log.write(
                        {"step": clock.step, "epoch": clock.epochs, **line, "time/seconds": round(self.seconds, 3)}
                    )
                if self._save_due(saved, bool(line)) and not clock.done:
                    self.save()
                    saved = time.perf_counter()
                if clock.done:
                    break
                del step  # frees its features while fused runs take their steps
                paused = time.perf_counter()
                yield
                pause = time.perf_counter() - paused
                started, logged = started + pause, logged + pause
                mark = self._stopwatch()
        self.save()

    def _stopwatch(self) -> float:
        """Seconds for the cost of a step: CPU time on a CPU, which other processes do not slow down."""
        return time.process_time() if self.device.type == "cpu" else time.perf_counter()

    def _save_due(self, saved: float, logged: bool) -> bool:
        """Whether to write a checkpoint; of several processes the leader decides, at steps that write a line."""
        if world_size() > 1 and not logged:
            return False
        return from_leader(time.perf_counter() - saved >= self.checkpoint_seconds)

    def evaluate(self) -> dict[str, float]:
        """Run the evaluators that are due at this step."""
        due = [e for e in self.evaluators.values() if self.clock.due(e.every)]
        if not due:
            return {}
        self.meter.check()
        models = dict(self.method.models())
        if self.ema is not None:
            models["student"] = self.ema.model
        metrics: dict[str, float] = {}
        self.method.eval()
        with torch.no_grad(), seeded(0, "evaluation"):
            for evaluator in due:
                metrics |= evaluator.run(models)
        self.method.train()
        if self.selection.update(metrics, self.clock.epochs):
            self.on_selected(models["student"])
        return metrics

    @property
    def deliverable(self) -> nn.Module:
        """The student to export: its weight average if there is one."""
        return self.method.student if self.ema is None else self.ema.model

    def save(self) -> None:
        """Write a checkpoint; a run that loads it repeats the next steps bit for bit."""
        meter, rng = self.meter.state_dict(), all_gather_values(get_rng_state())
        if not is_leader():
            return
        kept = {name: state for name, of in self.evaluators.items() if (state := of.state_dict())}
        self.checkpoints.save(
            {
                "meter": meter,
                "method": self.method.training_state(),
                "update": self.update.state_dict(),
                "ema": None if self.ema is None else self.ema.state_dict(),
                "selection": self.selection.state_dict(),
                "rng": rng[0],
                **({"evaluators": kept} if kept else {}),
                # of the other processes
                **({"further_rng": rng[1:]} if len(rng) > 1 else {}),
                "step": self.clock.step,
                "examples": self.examples,
                "seconds": self.seconds,
                "step_seconds": self.step_seconds,
                "together": self.together,
                "threads": self.threads,
                "log": self.log.position,
            }
        )

    def _check_agreement(self) -> None:
        """Raise UserError if the processes' training states differ."""
        if world_size() == 1:
            return
        sums = all_gather_values({name: magnitude(t) for name, t in self.method.training_state().items()})
        for name, value in sums[0].items():
            if any(other[name] != value and not math.isnan(value) for other in sums):
                raise UserError(
                    f"'{name}' differs between the {world_size()} processes: this method stores data of the examples "
                    "it saw, and each process sees a share of them; train it in one process"
                )

    def load(self, state: dict[str, Any]) -> None:
        """Restore a state that `save` wrote; the log was opened at `state["log"]`.

        Raises:
            UserError: A run with another number of processes wrote it.
        """
        rng = [state["rng"], *state.get("further_rng", ())]
        if len(rng) != world_size():
            raise UserError(
                f"the run was started with {len(rng)} processes and has {world_size()} now; resume it with the same "
                "number, or restart it with fresh=true"
            )
        self.method.load_training_state(state["method"])
        self.update.load_state_dict(state["update"])
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
        self.meter.load_state_dict(state["meter"])
        self.selection.load_state_dict(state["selection"])
        for name, own in state.get("evaluators", {}).items():
            self.evaluators[name].load_state_dict(own)
        self.clock.step, self.examples = state["step"], state["examples"]
        self.seconds, self.step_seconds = state["seconds"], state["step_seconds"]
        self.together = max(self.together, state["together"])
        if "threads" in state:  # missing in older checkpoints
            self.threads = [*state["threads"], *(n for n in self.threads if n != state["threads"][-1])]
        set_rng_state(rng[rank()])
