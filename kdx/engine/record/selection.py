"""Which epoch a number belongs to. Last, best on test and selected on validation are kept apart."""

from dataclasses import dataclass, field
from typing import Any

from kdx.core.metric import Metric

Metrics = dict[str, float]


@dataclass
class Selection:
    """Metrics under each protocol.

    Attributes:
        primary: The task's metric that epochs are compared by, in its own direction.
        last: At the end of the run: the protocol that numbers are reported under by default.
        best_on_test: Of the epoch that is best on the test set; optimistic, kept to compare with the literature that
            reports it, never to choose weights.
        val_selected: Of the epoch that is best on the validation set; None without a validation split.
    """

    primary: Metric
    last: Metrics = field(default_factory=dict)
    best_on_test: Metrics | None = None
    val_selected: Metrics | None = None

    def update(self, metrics: Metrics, epoch: float) -> bool:
        """Take in an evaluation; True where it is the new choice of the validation split."""
        self.last = {**self.last, **metrics, "epoch": epoch}
        here = {**metrics, "epoch": epoch}
        if self._better(here, self.best_on_test, "test"):
            self.best_on_test = here
        if self._better(here, self.val_selected, "val"):
            self.val_selected = here
            return True
        return False

    def state_dict(self) -> dict[str, Any]:
        return {"last": self.last, "best_on_test": self.best_on_test, "val_selected": self.val_selected}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.last, self.best_on_test, self.val_selected = state["last"], state["best_on_test"], state["val_selected"]

    def _better(self, metrics: Metrics, than: Metrics | None, split: str) -> bool:
        # the first of equals stays, so that the answer does not depend on how often one evaluates
        key = f"{split}/{self.primary.name}"
        return key in metrics and (than is None or self.primary.beats(metrics[key], than[key]))
