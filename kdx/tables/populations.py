"""The population that a row's repetitions are drawn from: seeds of the student, of the teacher, or of both."""

from collections.abc import Mapping, Sequence
from typing import Any

from kdx.runs.results import Result

Runs = Mapping[str, Mapping[int, Result]]


def teachers_by_row(
    results: Runs, columns: Sequence[str], name: str, baseline: str | None
) -> dict[str, dict[str, dict[int, float]]]:
    """Measurements of the distinct teachers of the runs; empty if there are none.

    Rows with other teachers than the baseline's (or the first row's) are another population and have a row of their
    own, so that no mean is taken over two kinds of teacher.

    Returns:
        Numbers by row, column and place.
    """
    families: list[tuple[set[str], list[str]]] = []
    facts: dict[str, Mapping[str, Any]] = {}
    order = [baseline, *results] if baseline is not None else list(results)
    for row in dict.fromkeys(order):
        own = {r.data["teacher"]["sha256"]: r.data["teacher"] for r in results[row].values() if r.data["teacher"]}
        facts |= own
        if not own:
            continue
        # a row that lacks seeds has some of the teachers of the others
        like = next((family for family in families if not family[0].isdisjoint(own)), None)
        if like is None:
            families.append((set(own), [row]))
        else:
            like[0].update(own)
            like[1].append(row)
    found: dict[str, dict[str, dict[int, float]]] = {}
    for i, (shas, rows) in enumerate(families):
        told = [facts[sha] for sha in facts if sha in shas]
        measured = {c: dict(enumerate(float(f[c]) for f in told)) for c in columns if all(c in f for f in told)}
        if measured:
            found[name if i == 0 else f"{name} of {', '.join(rows[:3])}" + (", ..." if len(rows) > 3 else "")] = (
                measured
            )
    return found


def distinct(runs: Mapping[int, Result]) -> dict[int, Result]:
    """The first run of each teacher, so that one teacher of several students counts once; runs without one stay."""
    first: dict[str, int] = {}
    for seed, run in runs.items():
        teacher = run.data["teacher"] or {}
        first.setdefault(teacher.get("sha256", f"seed {seed}"), seed)
    return {seed: runs[seed] for seed in first.values()}


def population(results: Runs, varied: Sequence[str]) -> str:
    """A sentence that says what n counts.

    Args:
        results: By row and seed.
        varied: Keys of the config that change from seed to seed; empty if unknown.
    """
    kinds: dict[str, list[str]] = {}
    for row, runs in results.items():
        shas = {r.data["teacher"]["sha256"] for r in runs.values() if r.data["teacher"] is not None}
        if len(runs) > 1:
            kinds.setdefault(_kind(len(runs), len(shas)), []).append(row)
    keys = f" ({', '.join(varied)} change)" if varied else ""
    most = max(kinds, key=lambda kind: len(kinds[kind]), default="one run a row")
    others = [f"of {', '.join(rows)}: {kind}" for kind, rows in kinds.items() if kind != most]
    return "; ".join([f"n counts {most}{keys}, with one test set", *others])


def _kind(runs: int, teachers: int) -> str:
    if teachers == 0:
        return "seeds of the student"
    if teachers == 1:
        return "seeds of the student with one teacher, whose own variance is left out"
    return "seeds of teacher and student" if teachers == runs else f"{runs} students of {teachers} teachers"
