"""Composed distillers that the laws hold for; together they have each option of each slot but the random mask."""

from composed_reference import REFERENCE
from law_case import Case

from kdx.losses.composed.composed import Composed


def case(roles, chain: str, at_equal: str = "zero", align: str = "channels", temperature: float | None = None) -> Case:
    """A case; its chain is "attention scope normalise distance"."""
    names = ("attention", "scope", "normalise", "distance")
    parts = dict(zip(names, chain.split(), strict=True))

    def make() -> Composed:
        return Composed(roles=roles, align=align, temperature=temperature, **parts)  # pyright: ignore[reportArgumentType]

    return Case(make, REFERENCE, at_equal)


TERMS = {
    "composed kd": case("logits", "none none softmax_channels kl", align="none", temperature=4.0),
    "composed attended logits": case("logits", "channel none none pearson_both", align="none"),
    "composed pooled": case(["final"], "spatial pool2 unit_channels l1"),
    "composed patches": case(["final"], "channel patches2 by_channel cosine"),
    "composed at": case(["stage1", "stage2"], "energy none unit_positions mse", align="none"),
    "composed sp": case(["stage3"], "none examples unit_channels mse", align="none"),
    "composed channels": case(["stage2"], "none channels standardise euclidean"),
    "composed smooth": case(["final"], "none patches4 min_max smooth_l1"),
    "composed single cell": case(["final"], "none pool4 none pearson"),
    "composed cwd": case(["stage2"], "none none softmax_positions kl", temperature=4.0),
    "composed over the batch": case(["pooled"], "none none unit_examples pearson_examples"),
    "composed unit": case(["stage2"], "none none unit euclidean"),
    "composed flat": case(["stage3"], "none none flatten pearson"),
    "composed regressor": case(["stage2"], "none none none mse", "", align="regressor"),
}
