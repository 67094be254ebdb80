"""Distance of values and of slopes, where both are known."""

import math

import pytest
import torch

from kdx.core.batch import Batch
from kdx.data.sources.plane import Plane
from kdx.evals.derivatives import Derivatives
from kdx.models.teachers.frozen import Frozen
from kdx.models.teachers.functions import StyblinskiTang
from kdx.tasks.values import Values


def test_a_steeper_function_is_as_far_away_as_its_closed_form_says():
    x = 10 * torch.rand(7, 1, 1, 3, generator=torch.Generator().manual_seed(0)) - 5
    student = StyblinskiTang()
    student.coefficients[0] += 0.5  # every x_i counts 0.5 more
    batches = [
        Batch.of_classes(part, torch.zeros(len(part), dtype=torch.long), torch.arange(len(part))) for part in x.split(4)
    ]
    evaluator = Derivatives(
        loaders={"test": batches}, device=torch.device("cpu"), task=Values((0.0,), (1.0,)), split="test", every=None
    )
    found = evaluator.run({"student": student, "teacher": Frozen(StyblinskiTang(), None, None)})
    expected = (0.5 * x.flatten(1).sum(1)).square().mean().sqrt().item()
    assert found["derivatives/test/rmse"] == pytest.approx(expected, rel=1e-4)
    assert found["derivatives/test/jacobian_rmse"] == pytest.approx(0.5 * math.sqrt(3), rel=1e-4)


def test_points_fill_the_square_and_change_with_the_seed():
    facts = dict(
        name="plane", num_outputs=1, function=StyblinskiTang(), target_mean=(3.0,),
        target_std=(2.0,), input_shape=(1, 1, 2), mean=(0.5,), std=(0.1,), train_size=3000, test_size=10,
        fraction=1.0, fraction_seed=0, val_fraction=0.0, val_seed=0, train_subset=5,
    )  # fmt: skip
    train, other = (Plane(**facts, seed=seed).splits().train.images.flatten(1) for seed in (0, 1))
    assert not torch.equal(train, other)
    for side in train.T:
        assert side.min() < 3 and side.max() > 252
        assert side.double().mean() == pytest.approx(127.5, abs=5)
    assert torch.corrcoef(train.T.double())[0, 1].abs() < 0.1
