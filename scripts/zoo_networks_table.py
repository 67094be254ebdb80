"""The table of `zoo_networks.py`."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

SIDES = ("student", "teacher")
LARGEST = 1e-5
"""Largest error of a feature that counts as the library's own."""


def table(found: Mapping[str, Mapping[str, Any]], total: int, main: Sequence[str], methods: Sequence[str]) -> str:
    """The Markdown of all results so far.

    Args:
        found: Results by network.
        total: Number of networks.
        main: Methods that are counted apart.
        methods: All methods.
    """
    good = {row: of for row, of in found.items() if "checks" in of}
    lines = [
        "# Networks of timm and torchvision with the methods that read features",
        "",
        f"{len(found)} of {total} networks, each the smallest variant of its module, random weights, at the "
        "smallest square input of 64 pixels or more that it takes. Every method at its default keys, one step forward "
        "and backward, the network as student (s) and as teacher (t) beside a vgg with narrow layers, or beside itself "
        "on other inputs where widths must agree. `s` and `t` in the table mean works: it builds, its value is finite, "
        "the student's features have a finite gradient, not zero, and the network's features are right (`error` up to "
        f"{LARGEST:.0e}). A number "
        "refers to the sentence below. Written by `make zoo-networks`.",
        "",
        "`error` is the largest difference, over the largest value and with random norms, between the features and the "
        "library's own: stages and `forward_intermediates`, `pooled` and `forward_head(pre_logits=True)`, the logits "
        "and `classifier(feature)`. torchvision has none of these functions: there, and where timm has none, the "
        "classifier alone is compared. `classifier` lists the features that a part of the network turns into its "
        "logits.",
        "",
        *(f"- {text}" for text in (shares(found, main), shares(found, methods), compared(good))),
        *(f"- {text}" for text in (columns(good, total, methods), commits(good))),
        "",
    ]
    sentences: dict[str, int] = {}

    def cell(of: Mapping[str, Any], method: str) -> str:
        marks = []
        for side in SIDES:
            if method in of[side]:
                said = problem(of, side, method)
                number = "" if said is None else str(sentences.setdefault(said, len(sentences) + 1))
                marks.append(f"{side[0]}{number}")
        return " ".join(marks)

    lines += [f"| network | px | stages | error | classifier | {' | '.join(methods)} |"]
    lines += [f"|---|---|---|---|---|{'---|' * len(methods)}"]
    for row, of in good.items():
        checks = of["checks"]
        stages = sum(role.startswith("stage") for role in checks["shapes"])
        largest = error(of)
        shown = "" if largest is None else "exact" if largest == 0 else f"{largest:.0e}"
        cells = " | ".join(cell(of, method) for method in methods)
        lines.append(
            f"| {row.partition('/')[0]} {of['name']} | {of['size']} | {stages} | {shown} | "
            f"{', '.join(checks['classifiers'])} | {cells} |"
        )
    lines += ["", *(f"{number}. {text}" for text, number in sentences.items()), ""]
    lines += [f"- {row}: {note}" for row, of in good.items() for note in of["checks"]["notes"]]
    lines += [f"- {row}: {of['problem']}" for row, of in found.items() if "problem" in of]
    return "\n".join(lines) + "\n"


def error(of: Mapping[str, Any]) -> float | None:
    """The largest error of a network's features; None if nothing could be compared."""
    compared = [v for k, v in of["checks"].items() if k in ("maps", "pooled") or k.startswith("logits")]
    return max((e for e in compared if e is not None), default=None)


def problem(of: Mapping[str, Any], side: str, method: str) -> str | None:
    """Why a method does not work; None if it does."""
    text = of[side][method]
    if text is not None:
        return general(text)
    largest = error(of)
    return None if largest is None or largest <= LARGEST else "runs, but on a feature that is not the library's own"


def shares(found: Mapping[str, Mapping[str, Any]], methods: Sequence[str]) -> str:
    """How many networks work with all of some methods, on both sides; one that could not be measured does not."""
    known = [of for of in found.values() if "checks" in of and all(m in of["student"] for m in methods)]
    total = len(known) + sum("problem" in of for of in found.values())
    cases = [[problem(of, side, m) for side in SIDES for m in methods if m in of[side]] for of in known]
    works = [said is None for case in cases for said in case]
    whole = sum(not any(case) for case in cases)
    return (
        f"{', '.join(methods)}: {whole} of {total} networks{percent(whole, total)} work with all of them on "
        f"both sides; {sum(works)} of {len(works)} single cases work{percent(sum(works), len(works))}."
    )


def percent(part: int, whole: int) -> str:
    """A share in brackets; nothing of nothing."""
    return f" ({100 * part / whole:.1f} %)" if whole else ""


def compared(good: Mapping[str, Mapping[str, Any]]) -> str:
    """How many networks have each kind of feature compared by value, and how many are right."""
    kinds = {"stages": "maps", "`pooled`": "pooled", "the classifier": "logits"}
    texts = []
    for name, key in kinds.items():
        values = [[v for k, v in of["checks"].items() if k.startswith(key) and v is not None] for of in good.values()]
        values = [v for v in values if v]
        texts.append(f"{name} in {len(values)} networks, {sum(max(v) <= LARGEST for v in values)} right")
    return f"Compared by value: {'; '.join(texts)}."


def columns(good: Mapping[str, Mapping[str, Any]], total: int, methods: Sequence[str]) -> str:
    """Which columns have a result for every network."""
    counts = {m: sum(m in of["student"] for of in good.values()) for m in methods}
    whole = [m for m, n in counts.items() if n == total]
    others = [f"{m} ({n})" for m, n in counts.items() if n < total]
    return (
        f"Columns with a result for all {total} networks: {', '.join(whole) or 'none'}. "
        f"Incomplete, with the number of networks: {', '.join(others) or 'none'}."
    )


def commits(good: Mapping[str, Mapping[str, Any]]) -> str:
    """How many results each commit of the code has made."""
    made = Counter(of.get("commits", {}).get(m, "commits not recorded") for of in good.values() for m in of["student"])
    text = f"Results by commit of the code: {', '.join(f'{name} ({n})' for name, n in made.items()) or 'none'}."
    if "commits not recorded" in made:
        text += (
            " Those without a commit are older: at the smallest input of 32 pixels or more, and a gradient of the "
            "logits alone counted as well."
        )
    return text


def general(text: str) -> str:
    """A sentence without the names and numbers of one network."""
    text = re.sub(r"^UserError: |the term '\w+' cannot be built for this \w+: ", "", text)
    text = re.sub(r"'stage\d'|'last'(?=, so it must)", "'stage'", text)
    return re.sub(r"\[B, [\d, ]+\]", "[B, ...]", text).replace("|", "/")
