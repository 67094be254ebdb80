"""Settings of the trainer: duration, batch size, precision, device."""

from dataclasses import dataclass
from typing import Literal

import torch

from kdx.core.distributed import local_rank, world_size
from kdx.core.errors import UserError
from kdx.core.ranges import Count, NonNegative, PartialFraction, Positive, PositiveInt
from kdx.engine.clock import Clock, Duration, Lengths
from kdx.engine.optim.ema import Averaging


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The `trainer` node of a config.

    Attributes:
        duration: Length of the run.
        schedule_epochs: Epochs over which the recipe's schedules are defined; a shorter run compresses them. None for
            the run's own length.
        batch_size: Examples of an optimizer step, over all devices.
        eval_batch_size: Examples of an evaluation batch.
        drop_last: Whether the short batch at the end of an epoch is left out.
        precision: Of the student: float32 throughout, or bfloat16 autocast with float32 weights and losses.
        channels_last: Memory format of the networks and of their inputs.
        compile: Whether the student goes through `torch.compile`.
        cuda_graph: Whether to capture a training step as a CUDA graph and replay it; speeds up small networks.
        ema: Moving average of the student's weights and statistics, which replaces the student in evaluation and
            export; a number is a decay without warm-up, None no average.
        log_steps: Optimizer steps between two lines of training metrics.
        checkpoint_seconds: Minimum time between two checkpoints, in seconds.
        device: auto, cpu, cuda or cuda:N; auto is a GPU if there is one.
        threads: Threads of a CPU operation; None for torch's default. The last bits of the results depend on it.
        num_workers: Processes that decode images; None for the machine's spare cores. Data sets in memory use none.
        deterministic: Whether torch raises an error for operations without a deterministic implementation (on a GPU).
    """

    duration: Duration
    schedule_epochs: Positive | None
    batch_size: PositiveInt
    eval_batch_size: PositiveInt
    drop_last: bool
    precision: Literal["fp32", "bf16"]
    channels_last: bool
    compile: bool
    cuda_graph: bool
    ema: PartialFraction | Averaging | None
    log_steps: PositiveInt
    checkpoint_seconds: NonNegative
    device: str
    threads: PositiveInt | None
    num_workers: Count | None
    deterministic: bool

    @property
    def autocast(self) -> torch.dtype | None:
        return torch.bfloat16 if self.precision == "bf16" else None

    def clock(self, loader: Lengths) -> Clock:
        """The clock of a run over a loader's epochs."""
        lengths = loader.steps_per_epoch, self.batch_size, loader.examples_per_epoch
        return Clock(self.duration.in_steps(*lengths), loader.steps_per_epoch, self.schedule_epochs, *lengths[1:])

    def pick_device(self) -> torch.device:
        """The device. Raises UserError if this machine does not have it."""
        if world_size() > 1 and self.device in ("auto", "cuda"):
            return self._own_gpu()
        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        try:
            device = torch.device(self.device)
        except RuntimeError:
            raise UserError(f"trainer.device={self.device} is no device; use auto, cpu, cuda or cuda:N") from None
        if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
            raise UserError(f"trainer.device={self.device}: this machine has {torch.cuda.device_count()} GPUs")
        if device.type == "cuda" and world_size() > 1:
            raise UserError(
                f"trainer.device={self.device} names one GPU for {world_size()} processes; use auto or cuda"
            )
        if device.type not in ("cpu", "cuda"):
            raise UserError(f"trainer.device={self.device} is not supported; use auto, cpu, cuda or cuda:N")
        return device

    def _own_gpu(self) -> torch.device:
        """The GPU of this process, or the CPU if the machine has no GPU and the device is auto."""
        if self.device == "auto" and not torch.cuda.is_available():
            return torch.device("cpu")
        if local_rank() >= torch.cuda.device_count():
            raise UserError(
                f"this machine has {torch.cuda.device_count()} GPUs and more processes than that; start one process "
                "for each GPU, or set trainer.device=cpu"
            )
        return torch.device("cuda", local_rank())
