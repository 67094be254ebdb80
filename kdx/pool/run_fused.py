"""Runs that train together in one process, step by step in turn."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from kdx.config.compose import Config
from kdx.core.seed import get_rng_state, set_rng_state
from kdx.runs.fused import FusedRuns
from kdx.runs.results import Result, finished
from kdx.runs.run import in_steps, name


def run_together(configs: Sequence[Config]) -> Iterator[tuple[int, Result | Exception]]:
    """Run prepared configs of one `shared`, which read each batch once and ask the teacher once.

    Each has its own networks, optimiser, random streams and directory, and ends as it would alone: on a CPU to the
    bit. One that fails leaves the others running; finished ones are not touched. A run's seconds are those of its
    own steps; who goes first at a step, and so reads the batch and asks the teacher, changes from step to step, so
    that each bears its share.

    Yields:
        The place of a run among `configs` and its result or error, as each ends.
    """
    waiting = []
    for place, config in enumerate(configs):
        result = None if config["fresh"] else finished(Path(config["paths"]["runs"]) / name(config))
        if result is None:
            waiting.append(place)
        else:
            yield place, result
    fused = FusedRuns(len(waiting))
    members = [_Member(place, configs[place], fused) for place in waiting]
    try:
        for member in list(members):  # all are there before one trains
            if (outcome := member.proceed()) is not None:
                members.remove(member)
                yield member.place, outcome
        fused.size = len(members)
        while members:
            member = min(members, key=lambda m: (m.step, (m.place - m.step) % len(configs)))
            if (outcome := member.proceed()) is not None:
                members.remove(member)
                yield member.place, outcome
    finally:
        for member in members:
            member.stop()


class _Member:
    """A run, and the global random streams as they are when it is its turn."""

    def __init__(self, place: int, config: Config, fused: FusedRuns):
        self.place, self.step = place, 0
        self._alone = fused.size == 1
        self._run, self._streams = in_steps(config, fused), None

    def proceed(self) -> Result | Exception | None:
        """Go on to the next pause; the result or the error where the run ended instead."""
        if self._streams is not None:
            set_rng_state(self._streams)
        try:
            self.step = next(self._run)
        except StopIteration as end:
            return end.value
        except Exception as error:
            return error
        if not self._alone:
            self._streams = get_rng_state()
        return None

    def stop(self) -> None:
        """Let go of the run's directory and files; it can be resumed from its last checkpoint."""
        self._run.close()
