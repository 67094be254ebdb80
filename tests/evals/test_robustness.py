"""Accuracy under attack, of networks whose weak points are known."""

import pytest
import torch
from torch import nn

from kdx.core.batch import Batch
from kdx.core.outputs import Outputs
from kdx.evals.robustness import Robustness
from kdx.models.attack import PGD
from kdx.models.teachers.frozen import Frozen
from kdx.tasks.classes import Classes

CPU = torch.device("cpu")
MEAN, STD = [0.5], [0.25]


class Threshold(nn.Module):
    """Class 1 where the mean pixel of a normalised image is above 0."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: torch.Tensor) -> Outputs:
        z = self.scale * x.flatten(1).mean(1)
        return Outputs(torch.stack([-z, z], 1))


def batches(batch_size: int) -> list[Batch]:
    # pixels from 0.31 to 0.7, so that |pixel - 0.5| <= radius falls
    pixel = torch.linspace(0.31, 0.7, 40)
    y = (pixel > 0.5).long()
    x = ((pixel - 0.5) / 0.25).view(-1, 1, 1, 1).expand(-1, 1, 2, 2)
    return [
        Batch.of_classes(x[i : i + batch_size], y[i : i + batch_size], y[i : i + batch_size])
        for i in range(0, 40, batch_size)
    ]


@pytest.mark.parametrize("batch_size", [7, 40])
@pytest.mark.parametrize("model", ["student", "teacher"])
def test_what_lies_within_the_radius_of_the_boundary_falls(batch_size: int, model: str):
    def fgsm(radius: float) -> PGD:
        return PGD(radius=radius, step_size=radius, steps=1, start="centre")

    attacks = {
        "none": fgsm(0.0),
        "fgsm": fgsm(0.055),
        "pgd": PGD(radius=0.055, step_size=0.02, steps=10, start="uniform"),
        "all": fgsm(0.5),
    }
    net = Threshold()
    models = {"student": net, "teacher": Frozen(Threshold(), None, None)}
    evaluator = Robustness(
        loaders={"test": batches(batch_size)},
        device=CPU,
        task=Classes(2),
        split="test",
        model=model,
        attacks=attacks,
        mean=MEAN,
        std=STD,
        every=None,
    )
    with torch.no_grad():
        found = evaluator.run(models)
    pixel = torch.linspace(0.31, 0.7, 40)
    safe = ((pixel - 0.5).abs() > 0.055).float().mean().item()
    assert 0 < safe < 1
    prefix = "" if model == "student" else "teacher/"
    expected = {"none": 1.0, "fgsm": safe, "pgd": safe, "all": 0.0}
    assert found == pytest.approx({f"{prefix}robustness/test/{name}": value for name, value in expected.items()})
    assert all(p.grad is None for p in net.parameters())
