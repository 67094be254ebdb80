"""Trains several runs together in one process, alternating after every step."""

from collections.abc import Iterator, Sequence

from kdx.config.schema import RunConfig
from kdx.core.errors import UserError
from kdx.core.seed import get_rng_state, set_rng_state
from kdx.runs.build import make
from kdx.runs.export import folder_of
from kdx.runs.fused import FusedRuns
from kdx.runs.lanes import Lanes, OneLane, lanes_on
from kdx.runs.results import Result
from kdx.runs.reuse.record import reused
from kdx.runs.run import in_steps


def run_together(configs: Sequence[RunConfig]) -> Iterator[tuple[int, Result | Exception]]:
    """Run prepared configs with equal `shared` parts; each batch is loaded once, and the teacher computes it once.

    Each run has its own networks, optimizer, random generators and directory, and ends with the same result as alone,
    on a CPU bit for bit. A failure stops no other run. Finished runs are not trained again. A run's seconds are those
    of its own steps. The run that steps first loads the batch and calls the teacher; the order rotates from step to
    step, so that these costs are shared equally.

    Yields:
        Index of a run in `configs` and its result or error, as each ends.
    """
    waiting = []
    for place, config in enumerate(configs):
        try:
            result = None if config.fresh else reused(config.plain(), folder_of(config))
        except UserError as error:
            yield place, error
            continue
        if result is None:
            waiting.append(place)
        else:
            yield place, result
    fused = FusedRuns(len(waiting), _lanes(configs, len(waiting)))
    members = [_Member(place, lane, configs[place], fused) for lane, place in enumerate(waiting)]
    try:
        for member in list(members):  # all runs are set up before the first step
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


def _lanes(configs: Sequence[RunConfig], size: int) -> Lanes | OneLane:
    """Streams of the runs that train; runs that cannot have their device report it themselves."""
    try:
        return lanes_on(make(configs[0].trainer).pick_device(), size) if size > 1 else OneLane()
    except (UserError, ValueError):
        return OneLane()


class _Member:
    """A run, with the state of the global random generators between its steps."""

    def __init__(self, place: int, lane: int, config: RunConfig, fused: FusedRuns):
        self.place, self.lane, self.step = place, lane, 0
        self._alone, self._lanes = fused.size == 1, fused.lanes
        self._run, self._streams = in_steps(config, fused), None

    def proceed(self) -> Result | Exception | None:
        """Take the next step; returns the result or the error if the run ended."""
        if self._streams is not None:
            set_rng_state(self._streams)
        try:
            with self._lanes.turn(self.lane):
                self.step = next(self._run)
        except StopIteration as end:
            return end.value
        except Exception as error:
            return error
        if not self._alone:
            self._streams = get_rng_state()
        return None

    def stop(self) -> None:
        """Release the run's directory and files; the run can resume from its last checkpoint."""
        if self._streams is not None:
            set_rng_state(self._streams)  # a signal makes the run save
        self._run.close()
