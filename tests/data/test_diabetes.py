"""The diabetes table: what it holds, how it is split and standardised."""

from pathlib import Path

import pytest
import torch
import yaml
from sklearn.datasets import load_diabetes
from sklearn.linear_model import LinearRegression
from sklearn.preprocessing import StandardScaler

from kdx.data.sets import DataError
from kdx.data.sources import diabetes
from kdx.data.sources.diabetes import Diabetes, split, table

REGIME = dict(fraction=1.0, fraction_seed=0, val_fraction=0.0, val_seed=0, train_subset=10)
FACTS = yaml.safe_load((Path(__file__).parents[2] / "configs" / "dataset" / "diabetes.yaml").read_text())


def made(**changes) -> Diabetes:
    return Diabetes(**{**{k: v for k, v in FACTS.items() if k not in ("_target_", "defaults")}, **changes})


def test_the_table_is_that_of_scikit_learn():
    features, targets = table()
    expected = load_diabetes(scaled=False)
    assert torch.equal(features, torch.from_numpy(expected.data))
    assert torch.equal(targets, torch.from_numpy(expected.target))
    assert tuple(expected.feature_names) == diabetes.FEATURES


def test_the_split_is_of_all_patients():
    train, test = split()
    assert torch.equal(torch.cat([train, test]).sort().values, torch.arange(442))
    assert (len(train), len(test)) == (300, 142)


def test_features_are_standardised_with_the_training_patients_alone():
    features, _ = table()
    train, test = split()
    expected = StandardScaler().fit(features[train])
    data, held = made().load()
    torch.testing.assert_close(data.vectors, torch.from_numpy(expected.transform(features[train])).float())
    torch.testing.assert_close(held.vectors, torch.from_numpy(expected.transform(features[test])).float())
    assert data.vectors.double().mean(0).abs().max() < 1e-6 < held.vectors.double().mean(0).abs().min()


def test_targets_are_standardised_as_the_config_says_and_the_task_reports_their_unit():
    _, targets = table()
    train, test = split()
    assert FACTS["target_mean"] == pytest.approx([float(targets[train].mean())], abs=0.05)
    assert FACTS["target_std"] == pytest.approx([float(targets[train].std(correction=0))], abs=0.05)
    dataset = made()
    for part, data in zip((train, test), dataset.load(), strict=True):
        back = data.targets["values"].double() * dataset.task.std[0] + dataset.task.mean[0]
        torch.testing.assert_close(back[:, 0], targets[part], rtol=0, atol=1e-4)


def test_metrics_are_in_the_unit_of_the_table():
    _, targets = table()
    train, test = split()
    dataset = made()
    data, held = dataset.load()
    model = LinearRegression().fit(data.vectors.numpy(), data.targets["values"].numpy())
    predicted = torch.from_numpy(model.predict(held.vectors.numpy())).float()
    metric = dataset.task.metrics()["errors"]
    metric.update(predicted, held.targets["values"])
    raw = LinearRegression().fit(table()[0][train], targets[train])
    errors = torch.from_numpy(raw.predict(table()[0][test])) - targets[test]
    assert metric.compute()["rmse"] == pytest.approx(float(errors.square().mean().sqrt()), rel=1e-4)
    assert metric.compute()["r2"] == pytest.approx(raw.score(table()[0][test], targets[test]), rel=1e-4)


def test_parts_of_the_training_set_are_nested_and_standardised_alike():
    whole, some, few = (made(fraction=f).splits().train for f in (1.0, 0.5, 0.2))
    assert (len(whole), len(some), len(few)) == (300, 150, 60)
    assert set(few.origin.tolist()) < set(some.origin.tolist())
    assert torch.equal(whole.vectors[some.origin], some.vectors)


def test_another_number_of_targets_is_refused():
    with pytest.raises(DataError, match="the diabetes table has one target, so num_outputs must be 1, got 2"):
        made(num_outputs=2, target_mean=[1.0, 2.0], target_std=[1.0, 1.0]).task  # noqa: B018


def test_a_table_that_differs_is_refused(monkeypatch):
    monkeypatch.setitem(diabetes.SHA256, "diabetes_target.csv.gz", "0" * 64)
    with pytest.raises(DataError, match="diabetes_target.csv.gz is not the diabetes table that is known"):
        table()
