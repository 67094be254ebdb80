"""Labels that are replaced: their number, their classes, and what stays."""

import pytest
import torch

from kdx.config.compose import compose
from kdx.config.identity import identity
from kdx.data.regime import with_noise
from kdx.data.sets import DataError
from kdx.runs.build import make


def test_a_share_is_replaced_by_other_classes_uniformly():
    labels = torch.arange(20000) % 5
    noisy = with_noise(labels, 5, 0.3, seed=1)
    changed = noisy != labels
    assert int(changed.sum()) == 6000 and int(noisy.min()) >= 0 and int(noisy.max()) < 5
    steps = ((noisy - labels) % 5)[changed].bincount(minlength=5)
    assert steps[0] == 0 and bool(((steps[1:] - 1500).abs() < 150).all())  # 4.5 standard deviations
    assert not torch.equal(with_noise(labels, 5, 0.3, seed=2), noisy)


def test_more_noise_replaces_more_and_unlabelled_examples_stay():
    labels = torch.arange(100) % 4
    labels[::10] = -1
    some, more = (with_noise(labels, 4, share, seed=0) for share in (0.2, 0.5))
    changed = some != labels
    assert torch.equal(more[changed], some[changed])
    assert bool((more[::10] == -1).all()) and bool((more[labels >= 0] >= 0).all())
    assert torch.equal(with_noise(labels, 4, 0.0, seed=0), labels)


def test_one_class_is_refused():
    with pytest.raises(DataError, match="two classes"):
        with_noise(torch.zeros(3, dtype=torch.int64), 1, 0.5, seed=0)


def test_training_labels_change_and_test_and_validation_labels_do_not():
    def splits(*overrides: str):
        return make(compose(["dataset=digits", "dataset.val_fraction=0.1", *overrides]).config["dataset"]).splits()

    clean, noisy = splits(), splits("dataset.label_noise=0.2")
    assert clean.val is not None and noisy.val is not None
    assert torch.equal(clean.test.labels, noisy.test.labels) and torch.equal(clean.val.labels, noisy.val.labels)
    assert int((clean.train.labels != noisy.train.labels).sum()) == 180
    assert torch.equal(clean.train.origin, noisy.train.origin)


def test_noise_is_part_of_a_runs_identity_and_its_absence_is_not():
    def name(*overrides: str) -> str:
        return identity(compose(["dataset=digits", *overrides]).config)

    assert (
        len({name(), name("dataset.label_noise=0.1"), name("dataset.label_noise=0.1", "dataset.label_noise_seed=1")})
        == 3
    )
    config = compose(["dataset=digits"]).config
    del config["dataset"]["label_noise"], config["dataset"]["label_noise_seed"]
    assert identity(config) == name()
