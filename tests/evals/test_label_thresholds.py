"""Thresholds are chosen on one split and measured on another."""

import pytest
import torch
from sklearn.metrics import f1_score
from torch import nn

from kdx.core.batch import Batch
from kdx.core.errors import UserError
from kdx.core.outputs import Outputs
from kdx.evals.label_thresholds import LabelThresholds
from kdx.metrics.multilabel import best_thresholds
from kdx.tasks.labels import Labels

CPU = torch.device("cpu")


class Echo(nn.Module):
    """Logits are the inputs."""

    def forward(self, x: torch.Tensor) -> Outputs:
        return Outputs(x)


@pytest.fixture
def splits() -> dict[str, list[Batch]]:
    torch.manual_seed(0)
    loaders = {}
    for split, size in (("test", 70), ("val", 50)):
        presence = (torch.rand(size, 4) < 0.3).float()
        # far from zero, so that one half is a poor threshold
        logits = 1.5 * presence + torch.randn(size, 4) - torch.tensor([3.0, -2.0, 1.0, 0.0])
        parts = zip(logits.split(16), presence.split(16), torch.arange(size).split(16), strict=True)
        loaders[split] = [Batch(z, {"presence": y}, i) for z, y, i in parts]
    return loaders


def evaluator(loaders, **changes) -> LabelThresholds:
    own = {"split": "test", "choose_on": "val", "per_label": True, "model": "student", "every": None}
    return LabelThresholds(loaders=loaders, device=CPU, task=Labels(4), **{**own, **changes})


def whole(batches: list[Batch]) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.cat([b.input_tensor for b in batches]), torch.cat([b.target("presence") for b in batches])


@pytest.mark.parametrize("per_label", [False, True])
def test_thresholds_come_from_validation_and_scores_from_test(splits, per_label: bool):
    found = evaluator(splits, per_label=per_label).run({"student": Echo()})
    thresholds = best_thresholds(*whole(splits["val"]), per_label)
    logits, presence = whole(splits["test"])
    predicted = (logits.double() >= thresholds).numpy()
    prefix = "thresholds" if per_label else "one_threshold"
    for average in ("micro", "macro"):
        expected = f1_score(presence.numpy(), predicted, average=average)
        assert found[f"{prefix}/test/{average}_f1"] == pytest.approx(expected)
    assert found.keys() == {f"{prefix}/test/{name}" for name in ("micro_f1", "macro_f1", "hamming", "jaccard")}


def test_the_measured_split_is_not_used_to_choose(splits):
    first = evaluator(splits).run({"student": Echo()})
    changed = [Batch(b.inputs, {"presence": 1 - b.target("presence")}, b.index) for b in splits["val"]]
    assert evaluator({**splits, "val": changed}).run({"student": Echo()}) != first


def test_a_split_that_is_missing_or_the_same_is_refused(splits):
    with pytest.raises(UserError, match="another split than they are measured on; both are 'test'"):
        evaluator(splits, choose_on="test")
    with pytest.raises(UserError, match=r"there is no split 'val' to choose thresholds on.*val_fraction"):
        evaluator({"test": splits["test"]})
