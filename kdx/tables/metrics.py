"""How metrics are shown."""

from typing import Any

from kdx.tables.table import LABELS

# name: (label, scale, digits, which way is better: 1 up, -1 down, 0 neither)
METRICS = {
    "test/top1": (1,),
    "test/top5": (1,),
    "val/top1": (1, "validation top-1 %", 100, 2),
    "test/nll": (-1,),
    "test/ece": (-1,),
    "test/brier": (-1,),
    "fidelity/test/agreement": (1,),
    "fidelity/test/kl": (-1,),
    "fidelity/test/reverse_kl": (-1, "KL from teacher", 1, 4),
    "fidelity/train/agreement": (1, "agreement on training set %", 100, 2),
    "seconds": (-1,),
    "milliseconds_per_step": (-1, "ms a step", 1, 2),
    "examples_per_second": (1, "examples/s", 1, 0),
    "parameters": (-1, "parameters", 1, 0),
}


def describe_metric(name: str) -> dict[str, Any]:
    """How a metric is shown: label, scale, digits and which way is better."""
    better, *own = METRICS.get(name, (0,))
    label, scale, digits = own or LABELS.get(name, (name, 1, 4))
    return {"name": name, "label": label, "scale": scale, "digits": digits, "better": better}
