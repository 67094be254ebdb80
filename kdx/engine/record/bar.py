"""What a person sees of a run in progress."""

import sys
from collections.abc import Mapping

from tqdm import tqdm

from kdx.core.distributed import leads


class Bar:
    """A progress bar with images per second and the time left; nothing where nobody is looking.

    Args:
        name: The run's name.
        examples: Training examples of the whole run.
    """

    def __init__(self, name: str, examples: int):
        unseen = not (leads() and sys.stderr.isatty())
        self._bar = tqdm(desc=name, total=examples, unit="img", unit_scale=True, dynamic_ncols=True, disable=unseen)

    def start(self, done: int) -> None:
        """Begin at what an earlier start of the run had done."""
        self._bar.initial = self._bar.n = done
        self._bar.refresh()

    def advance(self, examples: int) -> None:
        self._bar.update(examples)

    def show(self, line: Mapping[str, float]) -> None:
        shown = {key: f"{line[f'train/{key}']:.3f}" for key in ("loss", "top1") if f"train/{key}" in line}
        self._bar.set_postfix(shown, refresh=False)

    def stop(self) -> None:
        self._bar.close()
