"""Runs many trainings: each once, teachers first; a failure stops no other run."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import torch

from kdx.config.schema import RunConfig
from kdx.core.errors import DamagedError, UserError
from kdx.core.notice import say
from kdx.pool.run_fused import run_together
from kdx.pool.task import Failure, Task, Team, announce, report_failure, report_finished
from kdx.pool.workers import BUSY, Workers
from kdx.runs.ensemble_config import each_teacher
from kdx.runs.export import folder_of
from kdx.runs.folder import failure, is_done
from kdx.runs.fused import shared
from kdx.runs.lock import PAUSE, LockedError, is_locked
from kdx.runs.results import Result, finished
from kdx.runs.reuse.record import checked, renewed


def run_all(
    configs: Mapping[str, RunConfig], jobs: int, retry: Literal["failed"] | None, fused: int
) -> tuple[dict[str, Result], list[Failure]]:
    """Run the configs that are not finished; labels with the same config share one run.

    If another process trains a run, this function waits for its result, and resumes the run if that process dies.

    Args:
        configs: Prepared configs by label.
        jobs: Processes at a time; 1 trains in this process.
        retry: "failed" trains failed runs again; None reports them.
        fused: Maximum number of runs that train together in a process if they share data and teacher; 1 trains each
            alone.

    Returns:
        Results by label, and failures; each label is in one of the two.
    """
    tasks = _plan(configs)
    failed: dict[Path, str] = {}
    todo: list[Task] = []
    known: dict[str, Any] = {}  # fingerprints of data sets
    before: dict[Path, tuple[Result, str]] = {}
    for task in tasks.values():
        try:
            if not task.config.fresh and (found := checked(task.config.plain(), task.folder, known)) is not None:
                before[task.folder] = found
                continue
        except DamagedError as damage:
            failed[task.folder] = f"{damage}; fresh=true trains it again"
            continue
        except UserError as error:
            failed[task.folder] = report_failure(task, str(error))
            continue
        error = failure(task.folder)
        if error and retry is None and not task.config.fresh and not is_locked(task.folder):
            failed[task.folder] = f"{error}; failed before, retry=failed tries it again"
        else:
            todo.append(task)
    report_finished(before)
    if todo:
        teams = make_teams(todo, jobs, fused)
        failed |= _in_turn(teams, failed) if jobs == 1 else _in_parallel(teams, failed, jobs)
    results: dict[str, Result] = {}
    failures: list[Failure] = []
    for label, config in configs.items():
        folder = folder_of(config)
        result = None if folder in failed else finished(folder)
        if result is not None:
            results[label] = result
        else:
            failures.append(Failure(label, folder, failed.get(folder, "no result")))
    return results, failures


def look_up(configs: Mapping[str, RunConfig]) -> tuple[dict[str, Result], list[Failure]]:
    """Finished results and failures, without running anything; a run that was never started is in neither."""
    results: dict[str, Result] = {}
    failures: list[Failure] = []
    for label, config in configs.items():
        folder = folder_of(config)
        try:
            result = finished(folder)
        except DamagedError as damage:
            failures.append(Failure(label, folder, str(damage)))
            continue
        if result is not None:
            results[label] = result
        elif error := failure(folder):
            failures.append(Failure(label, folder, error))
    return results, failures


def _plan(configs: Mapping[str, RunConfig]) -> dict[Path, Task]:
    """Tasks by directory, each after the teachers that it needs; runs share the tasks of their teachers."""
    tasks: dict[Path, Task] = {}

    def add(label: str, config: RunConfig) -> Path:
        folder = folder_of(config)
        if folder in tasks:
            return folder
        trainings = [own.teacher.training for own in each_teacher(config).values() if own.teacher is not None]
        paths = replace(config.paths, runs=config.paths.teachers)
        teachers = [
            add(
                f"teacher {training.choices['student']}, seed {training.seed}",
                _renewed(config, replace(training, paths=paths, reuse=config.reuse)),
            )
            for training in trainings
            if training is not None and (config.fresh or not is_done(folder))
        ]
        tasks[folder] = Task(label, config, folder, frozenset(teachers))
        return folder

    for label, config in configs.items():
        add(label, config)
    return tasks


def _renewed(config: RunConfig, training: RunConfig) -> RunConfig:
    """A teacher's training, with `fresh` if its student has it and the teacher's data or code changed."""
    fresh = config.fresh and renewed(training.plain(), folder_of(training)) is not None
    return replace(training, fresh=fresh)


def make_teams(tasks: Sequence[Task], jobs: int, fused: int) -> list[Team]:
    """Group tasks that can train together; teams are in the order of their first tasks.

    Args:
        tasks: In the order in which they can run.
        jobs: Processes at a time; there are at least as many teams if there are enough tasks.
        fused: Maximum number of tasks in a team.
    """
    if fused == 1:
        return [[task] for task in tasks]
    teachers = frozenset[Path]().union(*(task.teachers for task in tasks))
    groups: dict[tuple[bool, frozenset[Path], str], Team] = {}
    for task in tasks:
        groups.setdefault((task.folder in teachers, task.teachers, shared(task.config)), []).append(task)
    teams: list[Team] = []
    for (first, _, _), group in groups.items():
        beside = sum(key[0] == first for key in groups)  # groups that can run at the same time
        parts = min(len(group), max(-(-len(group) // fused), -(-jobs // beside)))
        cuts = [len(group) * part // parts for part in range(parts + 1)]
        teams += [group[start:stop] for start, stop in pairwise(cuts)]
    return teams


def _orphaned(team: Team, failed: Mapping[Path, str]) -> dict[Path, str]:
    """Reasons why a team cannot run, by directory; empty if it can."""
    reasons = [failed[folder] for folder in sorted(team[0].teachers) if folder in failed]
    return {task.folder: f"its teacher failed: {reasons[0]}" for task in team} if reasons else {}


def _failed_elsewhere(team: Team, told: set[Path]) -> dict[Path, str]:
    """Why runs failed in another process that this one waited for, by directory; they are not tried again."""
    waited = [task for task in team if task.folder in told and not task.config.fresh and not is_locked(task.folder)]
    return {task.folder: report_failure(task, error) for task in waited if (error := failure(task.folder))}


def _in_turn(todo: list[Team], before: Mapping[Path, str]) -> dict[Path, str]:
    failed, count, begun = dict(before), sum(map(len, todo)), 0
    told: set[Path] = set()
    threads = torch.get_num_threads()
    while todo:
        team = todo.pop(0)
        if reasons := _orphaned(team, failed):
            failed |= reasons
            continue
        if any(other.folder in team[0].teachers for later in todo for other in later):
            todo.append(team)
            continue
        failed |= _failed_elsewhere(team, told)
        team = [task for task in team if task.folder not in failed]
        if not team:
            continue
        if not any(task.folder in told for task in team):
            announce(team, begun, count)
            begun += len(team)
        torch.set_num_threads(threads)  # an earlier run may have set its own number
        busy: Team = []
        for place, outcome in run_together([task.config for task in team]):
            task = team[place]
            if isinstance(outcome, LockedError):
                if task.folder not in told:
                    say(f"{task.label}: {outcome}; waiting for its result")
                    told.add(task.folder)
                busy.append(task)
            elif isinstance(outcome, Exception):
                failed[task.folder] = report_failure(task, f"{type(outcome).__name__}: {outcome}")
        if busy:
            if all(other.folder in told for later in todo for other in later):
                time.sleep(PAUSE)
            todo.append(busy)
    return failed


def _in_parallel(todo: list[Team], before: Mapping[Path, str], jobs: int) -> dict[Path, str]:
    failed, count, begun = dict(before), sum(map(len, todo)), 0
    resting: dict[Path, float] = {}
    told: set[Path] = set()
    workers = Workers(jobs)
    try:
        while todo or workers.tasks:
            now = time.monotonic()
            for team in list(todo):
                pending = {task.folder for task in [*(t for later in todo for t in later), *workers.tasks]}
                if reasons := _orphaned(team, failed):
                    failed |= reasons
                    todo.remove(team)
                elif (
                    not workers.full and team[0].teachers.isdisjoint(pending) and resting.get(team[0].folder, 0) <= now
                ):
                    failed |= _failed_elsewhere(team, told)
                    todo.remove(team)
                    team = [task for task in team if task.folder not in failed]
                    if not team:
                        continue
                    if not any(task.folder in told for task in team):
                        announce(team, begun, count)
                        begun += len(team)
                    workers.start(team)
            for team, reasons in workers.ended():
                busy = [task for task in team if reasons.get(task.folder) == BUSY]
                for task in busy:
                    if task.folder not in told:
                        say(f"{task.label}: another process trains it; waiting for its result")
                        told.add(task.folder)
                    resting[task.folder] = time.monotonic() + PAUSE
                if busy:
                    todo.append(busy)
                for task in team:
                    if reasons.get(task.folder, BUSY) != BUSY:
                        failed[task.folder] = report_failure(task, reasons[task.folder])
    finally:
        workers.stop()
    return failed
