"""A W&B run as a view of the log. No other file imports wandb."""

import http.client
import logging
import os
import re
import secrets
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from kdx.core.errors import DamagedError, reason
from kdx.core.notice import say

ONLINE_ID = "wandb_id.txt"
RECORD = "metrics.jsonl"
SECONDS = 3.0  # that a server has for an answer before a run starts
PATIENCE = 30.0  # seconds in which W&B must start, and send the rest at the end of a run


class WandbView:
    """A W&B run that shows the lines of `metrics.jsonl`.

    An offline W&B run cannot resume and loses its last seconds when the process is killed, so it is created again from
    the log each time a run starts. An online W&B run resumes under its first id. A restarted run (fresh=true) gets a
    new id, since W&B drops steps below the last one that it has. The agent of a W&B sweep gives each run an id, so a
    resumed run is sent from the beginning of its log.

    Args:
        folder: The run's directory.
        run_id: Identity of the run; its id on W&B begins with it.
        name: Displayed name.
        config: Resolved config.
        past: Lines of the log before this start.
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
        import wandb  # takes a second of CPU time
        from wandb.errors import CommError

        logging.getLogger("wandb").setLevel(logging.ERROR)
        self._folder, self._lost = folder, False

        def start(mode: Literal["offline", "online", "disabled"]) -> wandb.Run:
            if mode == "offline":
                shutil.rmtree(folder / "wandb", ignore_errors=True)
            return wandb.init(
                project=project,
                entity=entity,
                group=group,
                tags=list(tags),
                mode=mode,
                id=_online_id(folder, run_id) if mode == "online" else run_id,
                name=name,
                dir=str(folder.resolve()),  # W&B's process may have another working directory
                config=dict(config),
                resume="allow" if mode == "online" else None,
                reinit="create_new",  # fused runs are open at the same time
                settings=wandb.Settings(
                    silent=True,
                    console="off",
                    x_disable_stats=True,
                    x_disable_meta=True,
                    save_code=False,
                    disable_git=True,
                    init_timeout=PATIENCE,
                    finish_timeout=PATIENCE,
                    finish_timeout_raises=True,
                ),
            )

        if mode == "online" and (silent := silence(wandb.setup().settings.base_url)):
            say(f"W&B's server does not answer ({silent}); the run is logged offline, and wandb sync uploads it later")
            mode = "offline"
        try:
            self._run = start(mode)
        except (CommError, TimeoutError) as error:
            if mode != "online":
                raise
            say(f"W&B's server does not answer ({reason(error)}); the run is logged offline")
            self._run = start("offline")
        if not self._run.resumed:
            for line in past:
                self.log(line)

    def log(self, line: Mapping[str, float | None]) -> None:
        values = {key: value for key, value in line.items() if value is not None}
        self._tolerate(lambda: self._run.log(values, step=int(values["step"])))

    def close(self, summary: Mapping[str, object] | None) -> None:
        import wandb

        if summary is not None:
            self._tolerate(lambda: self._run.summary.update(dict(summary)))
            for picture in sorted(self._folder.glob("*.png")):  # such as drawn detections
                self._tolerate(lambda picture=picture: self._run.log({picture.stem: wandb.Image(str(picture))}))
        self._tolerate(lambda: self._run.finish(exit_code=0 if summary is not None else 1))

    def _tolerate(self, act: Callable[[], object]) -> None:
        """Call W&B; its first error ends the view, not the run."""
        if self._lost:
            return
        try:
            act()
        except Exception as error:  # W&B's helper process may be killed at any time; many types report that
            self._lost = True
            say(f"W&B stopped ({reason(error)[:80]}); the run goes on, and {self._folder / RECORD} has every line")


def silence(url: str) -> str:
    """Why a server does not answer within seconds; empty if it answers, whatever it says."""
    try:
        with urllib.request.urlopen(url, timeout=SECONDS):
            return ""
    except urllib.error.HTTPError:
        return ""
    except (OSError, ValueError, http.client.HTTPException) as error:
        return f"{url}: {reason(error)[:80]}"


def _online_id(folder: Path, run_id: str) -> str:
    """The id in a run's directory, created with the first view; a restart of the run removes it."""
    file = folder / ONLINE_ID
    if not file.exists():
        file.write_text(f"{run_id}-{secrets.token_hex(4)}")
    found = file.read_bytes()
    if not re.fullmatch(rb"[\w-]{1,128}", found):
        raise DamagedError(f"{file} is damaged: it holds no id of a W&B run; fresh=true restarts the run")
    return found.decode()
