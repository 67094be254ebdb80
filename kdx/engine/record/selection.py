"""Which epoch a number belongs to. Last, best on test and selected on validation are kept apart."""

from dataclasses import asdict, dataclass, field
from typing import Any

Metrics = dict[str, float]


@dataclass
class Selection:
    """Metrics under each protocol.

    Attributes:
        last: At the end of the run: the protocol that numbers are reported under by default.
        best_on_test: Where test accuracy was highest; optimistic, kept to compare with the
            literature that reports it, never to choose weights.
        val_selected: Where validation accuracy was highest; None without a validation split.
    """

    last: Metrics = field(default_factory=dict)
    best_on_test: Metrics | None = None
    val_selected: Metrics | None = None

    def update(self, metrics: Metrics, epoch: float) -> bool:
        """Take in an evaluation; True where it is the new choice of the validation split."""
        self.last = {**self.last, **metrics, "epoch": epoch}
        here = {**metrics, "epoch": epoch}
        if _better(here, self.best_on_test, "test/top1"):
            self.best_on_test = here
        if _better(here, self.val_selected, "val/top1"):
            self.val_selected = here
            return True
        return False

    def state_dict(self) -> dict[str, Any]:
        return asdict(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.last, self.best_on_test, self.val_selected = state["last"], state["best_on_test"], state["val_selected"]


def _better(metrics: Metrics, than: Metrics | None, key: str) -> bool:
    # the first of equals stays, so that the answer does not depend on how often one evaluates
    return key in metrics and (than is None or metrics[key] > than[key])
