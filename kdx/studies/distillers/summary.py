"""The table of a search study, and what it says of the searches."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from kdx.studies.distillers.rank import interval, kendall
from kdx.tables.footnotes import footnotes
from kdx.tables.gains import legend
from kdx.tables.manifest import Made
from kdx.tables.multiplicity import survivors
from kdx.tables.publish import Source, publish
from kdx.tables.statistics import Comparison, Summary, compare
from kdx.tables.table import Table

if TYPE_CHECKING:
    from kdx.studies.distillers.findings import Findings

WEAK = 0.3  # Kendall's tau below which the fitness is called a poor guide
SECOND = "fidelity/test/agreement"


def publish_findings(findings: "Findings", paths: Mapping[str, str]) -> None:
    """Write and print the table of full-length runs, followed by what was found about the searches."""
    results = [*findings.baseline.values(), *findings.final.values()]
    more = [*searches(findings), *comparisons(findings), *reported(findings)]
    study = findings.study
    columns = [study.metric, "test/nll", SECOND]
    values: dict[str, dict[str, dict[int, float]]] = {}
    for name in study.baselines:
        values[name] = {column: found for column in columns if (found := findings.baselines(name, column))}
    for name in findings.histories:
        values[f"best of {name}"] = {column: found for column in columns if (found := findings.winners(name, column))}
    values = {row: by for row, by in values.items() if by}
    if not values:
        print("\n".join(more))
        return
    notes = [
        f"known methods: mean ± sample standard deviation over the seeds {list(study.final_seeds)}",
        f"best of a search: the mean of its winner over these seeds, mean ± standard deviation over the searches with "
        f"the seeds {list(study.seeds)}",
        "the search reads the validation split alone; this table is of the test set",
        *footnotes([result.data for result in results]),
    ]
    table = Table.of(study.title, columns, values, len(study.final_seeds), notes, findings.shown)
    wanted = {row: len(study.seeds) if row.startswith("best of ") else len(study.final_seeds) for row in values}
    table = Table(
        title=table.title,
        columns=table.columns,
        cells=table.cells,
        values=table.values,
        wanted=wanted,
        notes=table.notes,
        shown=table.shown,
    )
    made = [
        Made(f"{name}, seed {seed}", name, findings.recipes[name, seed], result)
        for (name, seed), result in findings.baseline.items()
    ]
    made += [
        Made(
            f"best of {name}, search {seed}, seed {other}", f"best of {name}", findings.found[name, seed, other], result
        )
        for (name, seed, other), result in findings.final.items()
    ]
    publish(table, paths, study.name, Source(type(study).__name__, "last", made), more)


def searches(findings: "Findings") -> list[str]:
    """Lines of Markdown: a table of the searches."""
    lines = [
        "## Searches",
        "",
        "| search | best fitness | again, other seeds | again, test set | refused before | rejected during | failed "
        "| training saved |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in findings.histories:
        states = findings.states(name)
        count = sum(states.values())
        saved = findings.saved(name)
        cells = [_shown(of) for of in (findings.best(name), findings.refitted(name), findings.held_out(name))]
        cells += [_share(states[state], count) for state in ("refused", "rejected", "failed")]
        cells.append("unknown" if saved is None else f"{saved[1]:.0f} s beside {saved[0]:.0f} s")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += [
        "",
        "Fitness is minimised: mean ± standard deviation over searches, on the validation split; `again` trains the "
        "winner's proxy with seeds that no search used, on the same split and on the test set. Shares are of all "
        "candidates. Saved, in seconds of steps (CPU time on a CPU): a candidate refused before training saves the "
        "mean of a proxy, one rejected during it three quarters.",
        "",
    ]
    times = [spent for of in findings.times.values() for spent in of]
    if whole := sum(spent.whole for spent in times):
        parts = [sum(getattr(spent, part) for spent in times) for part in ("training", "screening", "rest")]
        shares = [f"{100 * part / whole:.1f} %" for part in parts]
        lines += [
            f"The searches took {whole:.0f} s: {shares[0]} in runs, {shares[1]} in proposals and checks before "
            f"training (networks and data for them included), {shares[2]} elsewhere. By their own clocks, steps and "
            f"evaluations of runs with a result took {findings.own_seconds():.0f} s; the rest is of runs that were "
            "rejected, or sets runs up and exports them.",
            "",
        ]
    drops = [
        f"- {name}, seed {seed}: {drop.slot}={drop.option} after {drop.after} candidates ({drop.trials} trained, mean "
        f"rank {drop.mean_rank:.2f}, p = {drop.p:.3f})"
        for name, of in findings.histories.items()
        for seed, history in of.items()
        for drop in history.drops
    ]
    return [*lines, "## Options dropped", "", *(drops or ["none"]), ""]


def comparisons(findings: "Findings") -> list[str]:
    """Lines of Markdown: differences with their intervals, bias of the best, and the rank correlation."""
    study = findings.study
    main, rival, form = study.main, study.rival, findings.shown[study.metric]
    lines = ["## Comparisons", ""]
    if main in findings.histories and rival in findings.histories:
        ours, theirs = findings.best(main), findings.best(rival)
        if ours and theirs:
            lines.append(f"- best fitness, {main} minus {rival}: {_difference(compare(ours, theirs))}")
    gains = _gains(findings)
    kept = survivors(gains)
    lines += [
        f"- {form.heading}, best of {main} minus {name}: {_difference(gain, form.scale)}{' *' if name in kept else ''}"
        for name, gain in gains.items()
    ]
    lines += [f"- {note}" for note in legend(list(gains.values()), form)] if gains else []
    for name in findings.histories:
        best = findings.best(name)
        for what, again in (("other seeds", findings.refitted(name)), ("the test set", findings.held_out(name))):
            gaps = [again[seed] - best[seed] for seed in best if seed in again]
            if gaps:
                lines.append(
                    f"- bias of the best of many, {name}: on {what} its fitness is {_interval(Summary.of(gaps))} above "
                    "that of the search"
                )
    lines += [line for name in dict.fromkeys((main, rival)) for line in _correlation(findings, name)]
    return [*lines, ""]


def _gains(findings: "Findings") -> dict[str, Comparison]:
    """The final metric of the winners of `main` minus that of `rival`'s and of each known method."""
    study, metric = findings.study, findings.study.metric
    if study.main not in findings.histories:
        return {}
    others = {f"best of {study.rival}": findings.winners(study.rival, metric)}
    others |= {name: findings.baselines(name, metric) for name in study.baselines}
    ours, form = findings.winners(study.main, metric), findings.shown[metric]
    unit = 10.0**-form.digits / form.scale
    return {name: compare(ours, theirs, unit) for name, theirs in others.items() if ours and theirs}


def _correlation(findings: "Findings", name: str) -> list[str]:
    groups = findings.pairs(name) if name in findings.histories else []
    taus = [tau for group in groups if not math.isnan(tau := kendall(group))]
    if not taus:
        return []
    mean, (low, high) = sum(taus) / len(taus), interval(groups, 0)
    verdict = "the fitness is a poor guide to the final metric" if mean < WEAK or low <= 0 else "the fitness is a guide"
    return [
        f"- Kendall's tau of proxy fitness and {findings.shown[findings.study.metric].heading} at full length, {name}: "
        f"{mean:.2f}, 95 % bootstrap interval {low:.2f} to {high:.2f} ({', '.join(f'{tau:.2f}' for tau in taus)} by "
        f"seed; {sum(map(len, groups))} candidates): {verdict}"
    ]


def reported(findings: "Findings") -> list[str]:
    """Lines of Markdown: numbers printed elsewhere, marked as such."""
    given = findings.study.reported
    if given is None:
        return []
    methods = list(dict.fromkeys(method for of in given.values.values() for method in of))
    lines = ["## Printed elsewhere, not measured here", "", f"| top-1 % | {' | '.join(methods)} |"]
    lines.append("|---" * (len(methods) + 1) + "|")
    for pair, of in given.values.items():
        cells = [f"{of[method]:.2f}" if method in of else "" for method in methods]
        lines.append(f"| {pair} | {' | '.join(cells)} |")
    return [*lines, "", f"Source: {given.source}", ""]


def _shown(values: Mapping[int, float]) -> str:
    return Summary.of(list(values.values())).show(1, 4) if values else "unknown"


def _share(part: int, whole: int) -> str:
    return f"{part} of {whole} ({100 * part / whole:.0f} %)" if whole else "0"


def _difference(found: Comparison, scale: float = 1.0) -> str:
    low, high = (scale * bound for bound in found.interval)
    of = "paired by search" if found.paired else "unpaired (Welch)"
    return f"{scale * found.gain.mean:+.3f}, 95 % interval {low:+.3f} to {high:+.3f}, {of}"


def _interval(summary: Summary) -> str:
    low, high = summary.interval
    return f"{summary.mean:+.4f} (95 % interval {low:+.4f} to {high:+.4f}, n = {summary.n})"
