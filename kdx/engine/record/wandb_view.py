"""W&B as a view of the record. The only file that imports wandb."""

import logging
import os
import secrets
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

ONLINE_ID = "wandb_id.txt"


class WandbView:
    """A W&B run that shows the lines of `metrics.jsonl`.

    Offline W&B cannot resume and loses its last seconds when killed, so an offline view is made anew
    from the record each time a run starts; an online one continues under the id that it was begun with,
    and one that starts over has a new one, since W&B drops steps below the last that it has. A sweep's
    agent gives each run an id of its own, under which a run that resumes is as new as an offline one.

    Args:
        folder: The run's directory.
        run_id: Identity of the run, with which its id on W&B begins.
        name: Name to show.
        config: Resolved config.
        past: Lines recorded before this start.
        project, entity, group, tags, mode: As in `wandb.init`.
    """

    def __init__(
        self,
        *,
        folder: Path,
        run_id: str,
        name: str,
        config: Mapping[str, Any],
        past: Sequence[Mapping[str, float | None]],
        project: str,
        entity: str | None,
        group: str | None,
        tags: Sequence[str],
        mode: Literal["offline", "online", "disabled"],
    ):
        os.environ.setdefault("WANDB_SILENT", "true")
        os.environ.setdefault("WANDB_CONSOLE", "off")
        import wandb  # a second of CPU, paid only by runs that show themselves there

        logging.getLogger("wandb").setLevel(logging.ERROR)
        if mode == "offline":
            shutil.rmtree(folder / "wandb", ignore_errors=True)
        self._run = wandb.init(
            project=project,
            entity=entity,
            group=group,
            tags=list(tags),
            mode=mode,
            id=_online_id(folder, run_id) if mode == "online" else run_id,
            name=name,
            dir=str(folder.resolve()),  # W&B's own process may have been started elsewhere
            config=dict(config),
            resume="allow" if mode == "online" else None,
            reinit="create_new",  # several runs of a process may be open at the same time
            settings=wandb.Settings(
                silent=True, console="off", x_disable_stats=True, x_disable_meta=True, save_code=False, disable_git=True
            ),
        )
        if not self._run.resumed:
            for line in past:
                self.log(line)

    def log(self, line: Mapping[str, float | None]) -> None:
        values = {key: value for key, value in line.items() if value is not None}
        self._run.log(values, step=int(values["step"]))

    def close(self, summary: Mapping[str, object] | None) -> None:
        if summary is not None:
            self._run.summary.update(dict(summary))
        self._run.finish(exit_code=0 if summary is not None else 1)


def _online_id(folder: Path, run_id: str) -> str:
    """The id of a run's directory, made with the first view: it lasts until the run is started over."""
    file = folder / ONLINE_ID
    if not file.exists():
        file.write_text(f"{run_id}-{secrets.token_hex(4)}")
    return file.read_text()
