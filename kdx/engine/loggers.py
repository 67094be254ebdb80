"""Where a run's record goes, as values of the config."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from kdx.engine.log import View


@dataclass(frozen=True)
class Nothing:
    """No record beyond the result."""

    keeps_record: ClassVar[bool] = False

    def view(
        self,
        folder: Path,
        run_id: str,
        name: str,
        config: Mapping[str, Any],
        past: Sequence[Mapping[str, float | None]],
    ) -> View | None:
        """What shows the record elsewhere; None for nothing."""
        return None


@dataclass(frozen=True)
class Jsonl(Nothing):
    """`metrics.jsonl` in the run's directory."""

    keeps_record = True


@dataclass(frozen=True, kw_only=True)
class Wandb(Jsonl):
    """`metrics.jsonl`, and a W&B run made from it.

    Attributes:
        project, entity, group, tags: As in `wandb.init`.
        mode: offline needs neither account nor network; `wandb sync` uploads such a run later.
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
        from kdx.engine.wandb_view import WandbView

        return WandbView(folder=folder, run_id=run_id, name=name, config=config, past=past, **asdict(self))


def asked_by_agent() -> bool:
    """Whether an agent of W&B's sweeps started this process."""
    return "WANDB_SWEEP_ID" in os.environ
