"""Loggers, as nodes of the config."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from kdx.core.seed import get_rng_state, set_rng_state
from kdx.engine.record.log import View


@dataclass(frozen=True)
class Nothing:
    """Writes no log; the result is written all the same."""

    keeps_record: ClassVar[bool] = False

    def view(
        self,
        folder: Path,
        run_id: str,
        name: str,
        config: Mapping[str, Any],
        past: Sequence[Mapping[str, float | None]],
    ) -> View | None:
        """A view that shows the log elsewhere; None for none."""
        return None


@dataclass(frozen=True)
class Jsonl(Nothing):
    """Writes `metrics.jsonl` in the run's directory."""

    keeps_record = True


class Deferred:
    """A view that opens when its first line is logged, so that the first steps do not wait for it.

    Args:
        open_view: Creates the view. The state of the random generators is restored after it.
    """

    def __init__(self, open_view: Callable[[], View]):
        self._open, self._opened = open_view, None

    def log(self, line: Mapping[str, float | None]) -> None:
        self._view().log(line)

    def close(self, summary: Mapping[str, object] | None) -> None:
        self._view().close(summary)

    def _view(self) -> View:
        if self._opened is None:
            before = get_rng_state()
            self._opened = self._open()
            set_rng_state(before)
        return self._opened


@dataclass(frozen=True, kw_only=True)
class Wandb(Jsonl):
    """Writes `metrics.jsonl` and a W&B run with the same lines.

    Attributes:
        project, entity, group, tags: As in `wandb.init`.
        mode: As in `wandb.init`; offline needs neither an account nor a network, and `wandb sync` uploads it later.
    """

    project: str
    entity: str | None
    group: str | None
    tags: Sequence[str]
    mode: Literal["offline", "online", "disabled"]

    def view(
        self,
        folder: Path,
        run_id: str,
        name: str,
        config: Mapping[str, Any],
        past: Sequence[Mapping[str, float | None]],
    ) -> View | None:
        def open_view() -> View:
            from kdx.engine.record.wandb_view import WandbView

            return WandbView(folder=folder, run_id=run_id, name=name, config=config, past=past, **asdict(self))

        # an online run prints its address, or its error, before training starts
        return Deferred(open_view) if self.mode == "offline" else open_view()


def started_by_agent() -> bool:
    """Whether an agent of a W&B sweep started this process."""
    return "WANDB_SWEEP_ID" in os.environ
