"""A cache of composed configs on disk, so that a table of hundreds of runs opens at once."""

import hashlib
import json
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import kdx
from kdx.config.compose import compose
from kdx.config.layout import config_dirs
from kdx.config.schema import RunConfig, run_config
from kdx.runs.prepare import examine
from kdx.runs.results import write_json


class ConfigCache:
    """Composed configs by their overrides; valid as long as YAML files, code and environment do not change.

    Args:
        path: The file; it can be deleted at any time.
    """

    def __init__(self, path: Path):
        self.path, self._changed = path, False
        try:
            data = json.loads(path.read_text())
            self._kept: dict[str, Any] = data["configs"] if data["digest"] == digest() else {}
        except (OSError, ValueError, KeyError, TypeError):
            self._kept = {}

    def config(self, overrides: Sequence[str]) -> tuple[RunConfig, bool]:
        """The validated config of overrides, and whether its data_seed is interpolated from its seed.

        Raises:
            ConfigError: With a line for each mistake.
        """
        key = json.dumps(list(overrides))
        if key not in self._kept:
            composed = compose(overrides)
            found, follows = examine(composed), "data_seed" in composed.interpolated
            if _reads_files(found):
                return found, follows  # not cached, since the files' content can change
            self._kept[key], self._changed = [found.plain(), follows], True
        config, follows = self._kept[key]
        return run_config(json.loads(json.dumps(config))), follows

    def save(self) -> None:
        """Save new configs; on a disk error they are composed again next time."""
        if not self._changed:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_json(self.path, {"digest": digest(), "configs": self._kept})
        except OSError:
            return


def _reads_files(config: RunConfig) -> bool:
    """Whether the config has the checksum of a file: initial weights, a teacher's weights, or images."""
    images = config.transfer["unlabelled"]
    given = [owner.sha256 for owner in (config.student, config.teacher) if owner is not None]
    given += [images["sha256"]] if isinstance(images, dict) and "sha256" in images else []
    return any(checksum is not None for checksum in given)


@cache
def digest() -> str:
    """Hash of all code and YAML files and of the environment variables that configs read."""
    content = hashlib.sha256()
    package = Path(kdx.__file__).parent
    for root, pattern in ((package, "*.py"), *((folder, "*.yaml") for folder in config_dirs())):
        for path in sorted(root.rglob(pattern)):
            content.update(f"{path.relative_to(root)}\n".encode() + path.read_bytes())
    for name in ("KDX_DATA", "HOME"):
        content.update(f"{name}={os.environ.get(name, '')}\n".encode())
    return content.hexdigest()
