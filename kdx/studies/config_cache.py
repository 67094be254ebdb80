"""Composed configs kept between commands: a table of hundreds opens at once, as long as nothing has changed."""

import hashlib
import json
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import kdx
from kdx.config.compose import Config, compose
from kdx.config.layout import config_dirs
from kdx.runs.prepare import examine
from kdx.runs.results import write_json


class Recall:
    """A config is a function of overrides, YAML files and code; where all of them are as they were, so is it.

    Args:
        path: The file; it may be removed at any time.
    """

    def __init__(self, path: Path):
        self.path, self._changed = path, False
        try:
            data = json.loads(path.read_text())
            self._kept: dict[str, Any] = data["configs"] if data["digest"] == digest() else {}
        except (OSError, ValueError, KeyError, TypeError):
            self._kept = {}

    def config(self, overrides: Sequence[str]) -> tuple[Config, bool]:
        """The checked config of overrides, and whether its data_seed follows its seed.

        Raises:
            ConfigError: With a line for everything that is wrong.
        """
        key = json.dumps(list(overrides))
        if key not in self._kept:
            composed = compose(overrides)
            found = [examine(composed), "data_seed" in composed.interpolated]
            if _reads_files(found[0]):
                return found[0], found[1]  # whose content may change
            self._kept[key], self._changed = found, True
        config, follows = self._kept[key]
        return json.loads(json.dumps(config)), follows

    def keep(self) -> None:
        """Write down what was composed; where that is not possible it is composed again next time."""
        if not self._changed:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_json(self.path, {"digest": digest(), "configs": self._kept})
        except OSError:
            return


def _reads_files(config: Config) -> bool:
    """Whether there is a checksum of something given: weights to start from, a teacher's, images."""
    given = (config["student"], config["teacher"], config["transfer"]["unlabelled"])
    return any(isinstance(node, dict) and node.get("sha256") is not None for node in given)


@cache
def digest() -> str:
    """Of all code and YAML files, and of the environment that configs may read."""
    content = hashlib.sha256()
    package = Path(kdx.__file__).parent
    for root, pattern in ((package, "*.py"), *((folder, "*.yaml") for folder in config_dirs())):
        for path in sorted(root.rglob(pattern)):
            content.update(f"{path.relative_to(root)}\n".encode() + path.read_bytes())
    for name in ("KDX_DATA", "HOME"):
        content.update(f"{name}={os.environ.get(name, '')}\n".encode())
    return content.hexdigest()
