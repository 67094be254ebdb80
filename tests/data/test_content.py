"""Equal inputs have equal digests; duplicates leave the training set; a number bounds it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_folder import folder_at
from test_regime import DIGITS

from kdx.data.content import UNREADABLE, digests, is_known, is_repeated
from kdx.data.sets import DataError, TensorSet, VectorSet
from kdx.data.sources.digits import Digits


def images(size: int, seed: int) -> torch.Tensor:
    """Images of few values, so that some repeat."""
    return torch.randint(2, (size, 2, 2, 1), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def test_digests_tell_inputs_apart_as_their_values_do():
    pixels = images(60, 0)
    for data in (TensorSet(pixels, torch.zeros(60).long(), 255), VectorSet(pixels.flatten(1).float(), torch.zeros(60))):
        found = digests(data)
        same = (pixels.flatten(1)[:, None] == pixels.flatten(1)[None]).all(2).numpy()
        assert np.array_equal(found[:, None] == found[None], same)
        assert is_repeated(found).tolist() == [bool(same[i, :i].any()) for i in range(60)]


def test_known_digests_are_those_of_another_set():
    a, b = (TensorSet(images(size, seed), torch.zeros(size).long(), 255) for size, seed in ((40, 1), (5, 2)))
    rows = [tuple(row) for row in b.images.flatten(1).tolist()]
    assert is_known(digests(a), digests(b)).tolist() == [tuple(r) in rows for r in a.images.flatten(1).tolist()]


def test_the_shape_is_part_of_the_content():
    flat = torch.zeros(1, 1, 4, 1, dtype=torch.uint8)
    found = [digests(TensorSet(pixels, torch.zeros(1).long(), 255))[0] for pixels in (flat, flat.view(1, 2, 2, 1))]
    assert found[0] != found[1]


def test_an_input_that_cannot_be_read_is_passed_on(tmp_path):
    from PIL import Image

    for name in ("a", "b", "c"):
        for part in ("train", "val"):
            folder = tmp_path / "tiny" / part / name
            folder.mkdir(parents=True)
            Image.new("RGB", (20, 20), (ord(name), 0, 0)).save(folder / "0.png")
    (tmp_path / "tiny" / "train" / "b" / "0.png").write_bytes(b"no image")
    train, _ = folder_at(tmp_path).load()
    with pytest.raises(DataError):
        digests(train)
    wrong: dict[int, str] = {}
    found = digests(train, lambda index, error: wrong.update({index: str(error)}))
    assert list(wrong) == [1] and "b/0.png" in wrong[1]
    assert (found == UNREADABLE).tolist() == [False, True, False]
    assert not is_repeated(np.repeat(found[1:2], 3)).any()  # nothing is known about them


class Repeated(Digits):
    """Digits whose training set holds three test images, one of them twice, and one of its own images twice."""

    def load(self):
        train, test = super().load()
        more = torch.cat([test.images[[4, 7, 9, 9]], train.images[[20]]])
        labels = torch.cat([test.labels[[4, 7, 9, 9]], train.labels[[20]]])
        return TensorSet(torch.cat([train.images, more]), torch.cat([train.labels, labels]), train.scale), test


def repeated(**changes) -> Repeated:
    return Repeated(**{**vars(DIGITS), **changes})


def test_duplicates_leave_the_training_set_and_nothing_else_does(capsys):
    whole, kept = (repeated(drop_duplicates=drop).splits() for drop in (False, True))
    assert len(whole.train) == 1005 and kept.train.origin.tolist() == list(range(1000))
    assert torch.equal(kept.test.images, whole.test.images)
    assert capsys.readouterr().err == (
        "kdx: dataset.drop_duplicates leaves out 4 training examples of digits that are in the test set, and 1 that "
        "repeat another\n"
    )


def test_no_validation_image_is_in_the_training_set_by_content():
    parts = repeated(drop_duplicates=True, val_fraction=0.3, val_seed=1).splits()
    assert not is_known(digests(parts.val), digests(parts.train)).any()


@pytest.mark.parametrize("fraction", [1.0, 0.1])
def test_a_number_of_examples_is_a_balanced_part_of_the_fraction(fraction: float):
    whole = replace(DIGITS, fraction=fraction).splits().train.origin.tolist()
    found = [replace(DIGITS, fraction=fraction, max_examples=n).splits().train for n in (12, 64, 5000)]
    assert [len(part) for part in found] == [12, 64, len(whole)]
    assert set(found[0].origin.tolist()) < set(found[1].origin.tolist()) < set(whole)
    for part in found[:2]:
        counts = part.labels.bincount(minlength=10)
        assert counts.max() - counts.min() <= 1
