"""Verdicts as Markdown."""

import math
from collections.abc import Sequence

from kdx.core.metric import fixed
from kdx.tables.claims.judge import Found, Judged
from kdx.tables.statistics import CONFIDENCE, ENOUGH, Interval

DECIMALS = 6  # most decimals of a difference


def section(judged: Sequence[Judged]) -> list[str]:
    """Lines of Markdown below a table: each claim with its verdict, the rule and its numbers; empty without claims."""
    if not judged:
        return []
    lines = ["", "## Claims", ""]
    for each in judged:
        lines.append(f"- **{each.verdict}**: {each.claim.sentence} {_summary(each)}")
        lines += [f"  - {rule(found, each.claim.unit)}" for found in each.found]
        if each.claim.printed is not None:
            lines.append(f"  - the paper: {each.claim.printed}")
        if each.lacking:
            lines.append(f"  - without runs: {'; '.join(each.lacking)}")
    return [*lines, "", legend(judged), ""]


def legend(judged: Sequence[Judged]) -> str:
    """How the verdicts are computed."""
    count = sum(each.verdict != "no verdict" for each in judged)
    return (
        "The rules stand in the study's YAML. A claim is shown if each of its requirements holds beyond its margin in "
        f"the {100 * CONFIDENCE:.0f} % interval over seeds, and its p-value is below {1 - CONFIDENCE:.2f} after Holm's "
        f"correction over the table's {count} claims with a verdict; opposite if that holds for the reverse of a "
        f"requirement; else not shown, which does not make it false. Fewer than {ENOUGH} seeds have no verdict."
    )


def rule(found: Found, unit: str) -> str:
    """ "KD, 10 % above alone, 10 %: +1.20 % [+0.80, +1.60] over 3 seeds"."""
    need = found.need
    right = f"{need.right:g}" if isinstance(need.right, float) else str(need.right)
    how = {"above": "above", "below": "below", "equal": "equal to"}[need.expect]
    edge = {"equal": " within ±", "above": " by more than ", "below": " by more than "}[need.expect]
    margin = f"{edge}{need.margin:g}" if need.margin else ""
    sentence = f"{need.left} {how} {right}{margin}"
    if math.isnan(found.difference):
        return f"{sentence}: no runs"
    return f"{sentence}: {number(found, unit)} over {found.n} seed{'s' if found.n != 1 else ''}"


def number(found: Found, unit: str) -> str:
    """ "+1.20 % [+0.80, +1.60]": the difference with its unit and interval."""
    if math.isnan(found.difference):
        return "-"
    of = unit if found.need.left.has_unit else ""
    ends = "" if math.isnan(found.interval[0]) else f" [{', '.join(_shown(e, found.interval) for e in found.interval)}]"
    return f"{_shown(found.difference, found.interval)} {of}".rstrip() + ends


def _summary(judged: Judged) -> str:
    if judged.verdict == "no verdict":
        return f"(n = {judged.n})"
    return f"(n = {judged.n}; p {_p(judged.p)}, {_p(judged.holm)} after Holm)"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _shown(value: float, interval: Interval) -> str:
    """A number with its sign and two digits of its uncertainty."""
    half = (interval[1] - interval[0]) / 2
    known = half if half > 0 else abs(value)  # also where half is NaN
    digits = 2 if not known > 0 else min(DECIMALS, max(0, 1 - math.floor(math.log10(known))))
    return fixed(value, digits, sign=True)
