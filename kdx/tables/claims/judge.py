"""Verdicts on claims, from differences with intervals over seeds and Holm's correction over the claims of a table."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from kdx.core.metric import PERCENT
from kdx.tables.claims.claim import Claim, Quantity, Requirement, Values
from kdx.tables.multiplicity import holm
from kdx.tables.statistics import CONFIDENCE, ENOUGH, NONE, Interval, Summary, compare
from kdx.tables.student_t import half_width, two_sided

Verdict = Literal["shown", "not shown", "opposite", "no verdict"]


@dataclass(frozen=True)
class Found:
    """A requirement and the difference that decides it.

    Attributes:
        need: The requirement.
        difference: left - right; NaN without a seed in common.
        interval: Its 95 % interval over seeds; NaN for fewer than two.
        n: Number of seeds, of the smaller side where the sides are not paired.
        p: Two-sided p-value against the requirement's opposite: small where the requirement holds.
        against: Two-sided p-value that is small where the opposite holds.
    """

    need: Requirement
    difference: float
    interval: Interval
    n: int
    p: float
    against: float


@dataclass(frozen=True)
class Judged:
    """A claim with its verdict.

    Attributes:
        name: Name of the claim in the study.
        claim: The claim.
        found: A line for each requirement.
        p: The largest p-value of the requirements, or that of the opposite where it is smaller.
        holm: That value after Holm's correction over the claims of the table; NaN without a verdict.
        verdict: "shown" or "opposite" where `holm` is below 0.05; "no verdict" for fewer than three seeds.
        lacking: Cells without runs.
    """

    name: str
    claim: Claim
    found: Sequence[Found]
    p: float
    holm: float
    verdict: Verdict
    lacking: Sequence[str]

    @property
    def n(self) -> int:
        """Smallest number of seeds of a requirement."""
        return min((found.n for found in self.found), default=0)


def judge(claims: Mapping[str, Claim], values: Values, fractions: bool) -> list[Judged]:
    """The verdict of each claim.

    A claim of several requirements is shown if each holds, so its p-value is the largest of theirs. The opposite of one
    of k requirements makes the opposite of the claim; the p-value is k times the smallest.

    Args:
        claims: By name.
        values: Numbers by row, column and seed.
        fractions: Whether the numbers of a claim with the unit "%" are fractions.
    """
    found = [_judged(name, claim, values, fractions) for name, claim in claims.items()]
    adjusted = holm({judged.name: judged.p for judged in found if judged.verdict != "no verdict"})
    done = []
    for judged in found:
        if judged.name in adjusted:
            sure = adjusted[judged.name] < 1 - CONFIDENCE
            verdict: Verdict = judged.verdict if sure else "not shown"
            judged = replace(judged, holm=adjusted[judged.name], verdict=verdict)
        done.append(judged)
    return done


def _judged(name: str, claim: Claim, values: Values, fractions: bool) -> Judged:
    """A claim without Holm's correction; its verdict is the side that it leans to."""
    scale = 100.0 if fractions and claim.unit == PERCENT else 1.0
    found = [_found(need, values, scale) for need in claim.requires]
    quantities = [quantity for need in claim.requires for quantity in need.quantities]
    lacking = list(dict.fromkeys(cell for quantity in quantities for cell in quantity.lacking(values)))
    holds = max(each.p for each in found)
    against = min(1.0, len(found) * min(each.against for each in found))
    enough = all(each.n >= ENOUGH for each in found)
    verdict: Verdict = "no verdict" if not enough else "opposite" if against < holds else "shown"
    return Judged(name, claim, found, min(holds, against) if enough else math.nan, math.nan, verdict, lacking)


def _found(need: Requirement, values: Values, scale: float) -> Found:
    left, right = _scaled(need.left, values, scale), {}
    if isinstance(need.right, Quantity):
        right = _scaled(need.right, values, scale)
    if not left or (isinstance(need.right, Quantity) and not right):
        return Found(need, math.nan, NONE, 0, math.nan, math.nan)
    if isinstance(need.right, Quantity):
        both = compare(left, right, max(need.left.grain, need.right.grain))
        difference, error, freedom = both.gain.mean, both.error, both.freedom
        n = len(both.seeds) or min(both.left.n, both.right.n)
    else:
        own = Summary.of(list(left.values()))
        difference, n = own.mean - need.right, own.n
        # a place is known to the distance of two cells
        error, freedom = max(own.std, need.left.grain / math.sqrt(6)) / math.sqrt(n), n - 1.0
    if math.isnan(error):
        return Found(need, difference, NONE, n, math.nan, math.nan)
    half = half_width(1 - CONFIDENCE, error, freedom, 0.0)
    inside, outside = _distances(need, difference)
    p, against = (two_sided(distance, error, freedom, 0.0) for distance in (inside, outside))
    return Found(need, difference, (difference - half, difference + half), n, p, against)


def _distances(need: Requirement, difference: float) -> tuple[float, float]:
    """Distance to the edge of what the requirement allows, from inside; and to the opposite's edge, from its inside."""
    if need.expect == "equal":
        return need.margin - abs(difference), abs(difference) - need.margin
    signed = difference if need.expect == "above" else -difference
    return signed - need.margin, -signed


def _scaled(quantity: Quantity, values: Values, scale: float) -> dict[int, float]:
    return {seed: (scale if quantity.has_unit else 1.0) * value for seed, value in quantity.of(values).items()}
