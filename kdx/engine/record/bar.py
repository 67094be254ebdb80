"""The progress bar of a run."""

import sys
from collections.abc import Mapping, Sequence

from tqdm import tqdm

from kdx.core.distributed import is_leader


class Bar:
    """A progress bar with examples per second and the time left; nothing if the output is no terminal.

    Args:
        name: The run's name.
        examples: Training examples of the whole run.
        shown: Names of training metrics that are shown, without "train/".
    """

    def __init__(self, name: str, examples: int, shown: Sequence[str]):
        self._shown = tuple(shown)
        unseen = not (is_leader() and sys.stderr.isatty())
        self._bar = tqdm(desc=name, total=examples, unit="ex", unit_scale=True, dynamic_ncols=True, disable=unseen)

    def start(self, done: int) -> None:
        """Begin at what an earlier start of the run had done."""
        self._bar.initial = self._bar.n = done
        self._bar.refresh()

    def advance(self, examples: int) -> None:
        self._bar.update(examples)

    def show(self, line: Mapping[str, float]) -> None:
        shown = {key: f"{line[f'train/{key}']:.3f}" for key in self._shown if f"train/{key}" in line}
        self._bar.set_postfix(shown, refresh=False)

    def stop(self) -> None:
        self._bar.close()
