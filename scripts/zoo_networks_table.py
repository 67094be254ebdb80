"""The table of `zoo_networks.py`."""

import re
from collections.abc import Mapping, Sequence
from typing import Any


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
        "smallest square input that it takes. Every method at its default keys, one step forward and backward, the "
        "network as student (s) and as teacher (t) beside a vgg with narrow layers, or beside itself where widths must "
        "agree. `s` and `t` in the table mean works: built, finite, and with a gradient. A number refers to the "
        "sentence below. Written by `make zoo-networks`.",
        "",
        "`error` is the largest difference, over the largest value and with random norms, between the features and the "
        "library's own: stages and `forward_intermediates`, `pooled` and `forward_head(pre_logits=True)`, the logits "
        "and `classifier(feature)`. `classifier` lists the features that a part of the network turns into its logits.",
        "",
    ]
    lines += [share(good, chosen) for chosen in (main, methods)] + [""]
    sentences: dict[str, int] = {}

    def cell(of: Mapping[str, Any], method: str) -> str:
        marks = []
        for side in ("student", "teacher"):
            if method in of[side]:
                text = of[side][method]
                said = None if text is None else general(text)
                number = "" if said is None else str(sentences.setdefault(said, len(sentences) + 1))
                marks.append(side[0] if text is None else f"{side[0]}{number}")
        return " ".join(marks)

    lines += [f"| network | px | stages | error | classifier | {' | '.join(methods)} |"]
    lines += [f"|---|---|---|---|---|{'---|' * len(methods)}"]
    for row, of in good.items():
        checks = of["checks"]
        errors = [v for k, v in checks.items() if k in ("maps", "pooled") or k.startswith("logits")]
        stages = sum(role.startswith("stage") for role in checks["shapes"])
        worst = max((e for e in errors if e is not None), default=None)
        shown = "" if worst is None else "exact" if worst == 0 else f"{worst:.0e}"
        cells = " | ".join(cell(of, method) for method in methods)
        lines.append(
            f"| {row.partition('/')[0]} {of['name']} | {of['size']} | {stages} | {shown} | "
            f"{', '.join(checks['classifiers'])} | {cells} |"
        )
    lines += ["", *(f"{number}. {text}" for text, number in sentences.items()), ""]
    lines += [f"- {row}: {note}" for row, of in good.items() for note in of["checks"]["notes"]]
    lines += [f"- {row}: {of['problem']}" for row, of in found.items() if "problem" in of]
    return "\n".join(lines) + "\n"


def share(good: Mapping[str, Mapping[str, Any]], methods: Sequence[str]) -> str:
    """How many networks work with all of some methods, on both sides."""
    sides = ("student", "teacher")
    known = [of for of in good.values() if all(m in of["student"] for m in methods)]
    whole = sum(all(of[side].get(m) is None for side in sides for m in methods) for of in known)
    single = [of[side][m] is None for of in known for side in sides for m in methods if m in of[side]]
    return (
        f"- {', '.join(methods)}: {whole} of {len(known)} networks work with all of them on both sides; "
        f"{sum(single)} of {len(single)} single cases work."
    )


def general(text: str) -> str:
    """A sentence without the names and numbers of one network."""
    text = re.sub(r"^UserError: |the term '\w+' cannot be built for this \w+: ", "", text)
    return re.sub(r"\[B, [\d, ]+\]", "[B, ...]", re.sub(r"'stage\d'", "'stage'", text)).replace("|", "/")
