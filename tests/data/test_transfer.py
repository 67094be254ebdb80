"""Laws of transfer sets: the student's examples, their labels and their order."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from test_loaders import STANDARD, synthetic
from test_regime import DIGITS

from kdx.core.batch import UNLABELLED
from kdx.data.loaders import TrainLoader
from kdx.data.sets import DataError, TensorSet
from kdx.data.sources.concat import ConcatSet
from kdx.data.sources.unlabelled_sources import Files, Gaussians, Noise, OtherData
from kdx.data.transfer import Transfer
from kdx.tasks.classes import Classes

TRAIN = Transfer(
    held_out=0.0,
    held_out_seed=0,
    part="held_out",
    unlabelled=None,
    labelled_share=None,
    omit_classes=(),
    only_classes=None,
    special_classes=None,
    special_share=0.5,
)
UNIFORM = Noise(kind="uniform", count=None, seed=0)
GREY = synthetic(input_shape=(1, 12, 10), mean=(0.5,), std=(0.2,), train_size=30)
OTHER = OtherData(dataset=synthetic(input_shape=(3, 9, 7)), count=None, seed=0)


def of(dataset=DIGITS, **changes):
    return replace(TRAIN, **changes).splits(dataset)


def batches(splits, batch_size=16, epoch=0, seed=0):
    loader = TrainLoader(splits.train, splits.spec, STANDARD, batch_size, seed, 0, False, True, splits.mix)
    found = list(loader.epoch(epoch))
    assert len(found) == loader.steps_per_epoch
    return found


@pytest.mark.parametrize("regime", [{}, {"fraction": 0.3}, {"fraction": 0.3, "val_fraction": 0.2}])
def test_the_plain_transfer_set_is_the_training_set(regime):
    dataset = replace(DIGITS, **regime)
    ours, plain = TRAIN.splits(dataset), dataset.splits()
    assert ours.spec == plain.spec and torch.equal(ours.spec.labels, plain.spec.labels)
    for part in ("train", "test", "train_subset"):
        a, b = getattr(ours, part), getattr(plain, part)
        assert torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels) and torch.equal(a.origin, b.origin)
    assert not ours.spec.has_unlabelled and ours.spec.has_labelled


def test_what_is_held_out_is_new_to_the_teacher_and_balanced():
    dataset = replace(DIGITS, val_fraction=0.2)
    student, teacher = (of(dataset, held_out=0.4, part=part) for part in ("held_out", "rest"))
    mine, theirs = (set(s.train.origin.tolist()) for s in (student, teacher))
    val = set(student.val.origin.tolist())
    assert not mine & theirs and not (mine | theirs) & val and len(mine | theirs | val) == 1000
    assert len(mine) == 320
    counts = student.train.labels.bincount().double() / dataset.splits().train.labels.bincount()
    assert bool(((counts - 0.4).abs() < 0.02).all())
    # the labelled fraction refers to the student's part
    few = of(replace(dataset, fraction=0.5), held_out=0.4)
    assert set(few.train.origin.tolist()) < mine and len(few.train) == 160


def test_a_left_out_class_is_never_seen_and_the_rest_stays():
    plain, without = DIGITS.splits(), of(omit_classes=(3, 5))
    kept = ~torch.isin(plain.train.labels, torch.tensor([3, 5]))
    assert torch.equal(without.train.origin, plain.train.origin[kept])
    assert torch.equal(without.test.labels, plain.test.labels)
    few, fewer = of(replace(DIGITS, fraction=0.2)), of(replace(DIGITS, fraction=0.2), omit_classes=(3,))
    assert set(few.train.origin[few.train.labels != 3].tolist()) == set(fewer.train.origin.tolist())
    assert set(of(only_classes=(7, 8)).train.labels.tolist()) == {7, 8}
    seen = torch.cat([b.labels for b in batches(without)])
    assert set(seen.tolist()) == set(range(10)) - {3, 5}


def test_the_rest_of_the_training_set_comes_without_labels():
    dataset = replace(DIGITS, fraction=0.2)
    labelled, splits = dataset.splits().train, of(dataset, unlabelled="rest")
    assert len(splits.train) == 1000
    known = splits.train.labels >= 0
    assert torch.equal(splits.train.origin[known], labelled.origin)
    assert torch.equal(splits.train.labels[known], labelled.labels)
    assert bool((splits.train.labels[~known] == UNLABELLED).all())
    assert splits.spec.has_unlabelled and splits.spec.has_labelled
    assert bool((splits.train_subset.labels >= 0).all())
    alone = of(dataset, unlabelled="rest", labelled_share=0.0)
    assert set(alone.train.origin.tolist()) == set(splits.train.origin[~known].tolist())
    assert not alone.spec.has_labelled
    # an omitted class is omitted from the unlabelled examples, too
    truth = DIGITS.splits().train.labels
    without = of(dataset, unlabelled="rest", omit_classes=(3,))
    assert set(truth[without.train.origin].tolist()) == set(range(10)) - {3}


def test_views_have_numbers_where_images_are_of_the_training_set_and_none_elsewhere():
    dataset = replace(DIGITS, fraction=0.5)
    rest = batches(of(dataset, unlabelled="rest"))
    plain = {int(n): x for b in batches(DIGITS.splits()) for n, x in zip(b.view, b.inputs, strict=True)}
    shared = 0
    for batch in rest:
        for number, image in zip(batch.view, batch.inputs, strict=True):
            shared += int(number) in plain
            assert torch.equal(plain.get(int(number), image), image)
    assert shared > 900  # for the same data seed and epoch
    assert all(b.view is None for b in batches(of(dataset, unlabelled=UNIFORM, labelled_share=None)))


@pytest.mark.parametrize("share", [0.25, 0.5, 0.9])
@pytest.mark.parametrize("batch_size", [16, 17])
def test_batches_are_labelled_by_the_share(share, batch_size):
    dataset = replace(DIGITS, fraction=0.05)
    splits = of(dataset, unlabelled="rest", labelled_share=share)
    found = batches(splits, batch_size)
    wanted = round(share * batch_size)
    assert all(len(b) == batch_size and int((b.labels >= 0).sum()) == wanted for b in found[:-1])
    assert abs(float((found[-1].labels >= 0).double().mean()) - share) < 0.5
    index = torch.cat([b.index for b in found])
    times = index.bincount(minlength=len(splits.train))
    labelled = splits.train.labels >= 0
    # one pass over the unlabelled examples; labelled ones repeat as evenly as possible
    assert bool((times[~labelled] == 1).all())
    assert int(times[labelled].max() - times[labelled].min()) <= 1 and int(times[labelled].min()) >= 1


def test_a_blended_epoch_from_the_middle_is_its_tail_and_a_function_of_seed_and_epoch():
    splits = of(replace(DIGITS, fraction=0.1), unlabelled="rest", labelled_share=0.3)
    make = lambda seed: TrainLoader(splits.train, splits.spec, STANDARD, 16, seed, 0, False, True, splits.mix)  # noqa: E731
    whole, tail = list(make(0).epoch(2)), list(make(0).epoch(2, start=5))
    assert all(torch.equal(a.inputs, b.inputs) for a, b in zip(whole[5:], tail, strict=True))
    assert not torch.equal(whole[0].index, next(make(1).epoch(2)).index)
    assert not torch.equal(whole[0].index, next(make(0).epoch(3)).index)


@pytest.mark.parametrize("share", [0.5, 0.25])
def test_a_specialist_sees_its_own_classes_once_and_others_at_random(share):
    splits = of(special_classes=(8, 1, 3), special_share=share)
    truth = DIGITS.splits().train.labels
    own = torch.isin(truth, torch.tensor([1, 3, 8]))
    epochs = [batches(splits, 16, epoch=epoch) for epoch in (0, 1)]
    for found in epochs:
        # rounded to whole examples in each batch, including the short last one
        assert all(abs(int((b.labels < 3).sum()) - share * len(b)) <= 1 for b in found)
        times = torch.cat([b.index for b in found]).bincount(minlength=len(truth))
        assert bool((times[own] == 1).all())
        # none repeats before all have been drawn
        assert int(times[~own].max() - times[~own].min()) <= 1
    first, second = ({i for b in found for i in b.index.tolist() if not own[i]} for found in epochs)
    assert share != 0.5 or first != second
    assert all(torch.equal(a.index, b.index) for a, b in zip(epochs[0], batches(splits, 16), strict=True))


def test_a_specialist_with_a_full_softmax_sees_the_same_examples_and_keeps_all_classes():
    one, full = (of(special_classes=(8, 1, 3), special_share=0.25, rest_class=rest) for rest in (True, False))
    truth = DIGITS.splits().train.labels
    for a, b in zip(batches(one), batches(full), strict=True):
        assert torch.equal(a.index, b.index) and torch.equal(b.labels, truth[b.index])
    assert torch.equal(full.test.labels, DIGITS.splits().test.labels) and full.spec.num_classes == 10
    regime = replace(TRAIN, special_classes=(8, 1, 3), rest_class=False)
    assert regime.task(Classes(10)) == Classes(10) and regime.outputs is None
    with pytest.raises(DataError, match="rest_class=false belongs to a specialist"):
        of(rest_class=False)


def test_a_specialist_takes_all_other_classes_for_one_in_every_split():
    dataset = replace(DIGITS, val_fraction=0.2)
    ours, plain = of(dataset, special_classes=(8, 1, 3)), dataset.splits()
    for part in ("train", "test", "val"):
        a, b = getattr(ours, part), getattr(plain, part)
        assert torch.equal(a.images, b.images)
        assert a.labels.tolist() == [{8: 0, 1: 1, 3: 2}.get(label, 3) for label in b.labels.tolist()]
    assert ours.spec.num_classes == 4 == replace(TRAIN, special_classes=(8, 1, 3)).task(Classes(10)).num_outputs
    assert torch.equal(ours.spec.labels, ours.train.labels) and set(ours.train_subset.labels.tolist()) == {0, 1, 2, 3}


def test_noise_has_the_moments_of_its_kind():
    dataset = synthetic(mean=(0.2, 0.4, 0.6), std=(0.05, 0.1, 0.02))
    home, _, _ = dataset.pools()
    noise = Noise(kind="gaussian", count=2000, seed=0).take(home, dataset).images.double() / 255
    assert torch.allclose(noise.mean((0, 1, 2)), torch.tensor([0.2, 0.4, 0.6]).double(), atol=1e-3)
    assert torch.allclose(noise.std((0, 1, 2)), torch.tensor([0.05, 0.1, 0.02]).double(), atol=1e-3)
    uniform = UNIFORM.take(DIGITS.pools()[0], DIGITS).images
    assert len(uniform) == 1000 and set(uniform.unique().tolist()) == set(range(17))
    again, other = UNIFORM.take(DIGITS.pools()[0], DIGITS), replace(UNIFORM, seed=1).take(DIGITS.pools()[0], DIGITS)
    assert torch.equal(uniform, again.images) and not torch.equal(uniform, other.images)


def test_another_data_set_comes_in_the_shape_and_scale_of_this_one():
    home, _, _ = DIGITS.pools()
    images = OTHER.take(home, DIGITS).images
    assert images.shape == (103, 8, 8, 1) and int(images.max()) <= 16
    source = OTHER.dataset.splits().train.images.double()
    grey = (source @ torch.tensor([0.299, 0.587, 0.114]).double() / 255).mean((1, 2))
    assert torch.allclose(images.double().mean((1, 2, 3)) / 16, grey, atol=0.03)
    colour = OtherData(dataset=GREY, count=7, seed=0).take(synthetic().pools()[0], synthetic()).images
    assert colour.shape == (7, 16, 16, 3) and torch.equal(colour[..., 0], colour[..., 2])


def test_joined_sets_are_their_parts_one_after_the_other():
    dataset = replace(DIGITS, fraction=0.1)
    splits = of(dataset, unlabelled=UNIFORM, labelled_share=None)
    own, noise = dataset.splits().train, UNIFORM.take(DIGITS.pools()[0], DIGITS)
    assert isinstance(splits.train, ConcatSet) and len(splits.train) == 1100
    chosen = torch.randperm(1100, generator=torch.Generator().manual_seed(0))[:300]
    every = torch.cat([own.images, noise.images])
    part = splits.train.subset(chosen)
    for data, wanted in (
        (splits.train, every),
        (part, every[chosen]),
        (part.subset(torch.tensor([5, 2])), every[chosen[[5, 2]]]),
    ):
        source, rows = data.rows(torch.arange(len(data)))
        assert torch.equal(torch.from_numpy(source[rows]), wanted)
        assert all((data.whole(i) == wanted[i].numpy()).all() for i in (0, 1))
    assert torch.equal(part.labels, torch.cat([own.labels, torch.full((1000,), -1)])[chosen])
    assert part.pool == 2000 and len(splits.train.origin.unique()) == 1100
    assert part.labelled(torch.zeros(300)).subset(torch.tensor([3])).labels.tolist() == [0]


def test_files_are_read_back(tmp_path: Path):
    from PIL import Image

    home, _, _ = synthetic().pools()
    images = torch.randint(256, (5, 16, 16, 3), dtype=torch.uint8)
    save_file({"images": images}, tmp_path / "bytes.safetensors")
    save_file({"images": images.permute(0, 3, 1, 2).float().contiguous() / 255}, tmp_path / "floats.safetensors")
    (tmp_path / "folder").mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image.numpy()).save(tmp_path / "folder" / f"{i}.png")
    for name in ("bytes.safetensors", "floats.safetensors", "folder"):
        found = Files(path=str(tmp_path / name), sha256=None).take(home, synthetic())
        assert torch.equal(found.images, images) and set(found.labels.tolist()) == {-1}
    save_file({"pictures": images}, tmp_path / "wrong.safetensors")
    for name, sentence in (("nowhere", "neither a file nor a folder"), ("wrong.safetensors", "tensor 'images'")):
        with pytest.raises(DataError, match=sentence):
            Files(path=str(tmp_path / name), sha256=None).take(home, synthetic())


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"labelled_share": 0.5}, "unlabelled is null"),
        ({"labelled_share": 1.0, "unlabelled": UNIFORM}, "transfer=train"),
        ({"unlabelled": "rest"}, "dataset.fraction=1 leaves none"),
        ({"omit_classes": (1,), "only_classes": (2,)}, "not both"),
        ({"omit_classes": (10,)}, "classes are 0 to 9"),
        ({"only_classes": ()}, "at least one class"),
        ({"omit_classes": tuple(range(10))}, "omit_classes leaves no class to learn from"),
        ({"special_classes": (3, 10)}, "classes are 0 to 9"),
        ({"special_classes": (3, 3)}, "different classes, some but not all"),
        ({"special_classes": ()}, "different classes, some but not all"),
        ({"special_classes": tuple(range(10))}, "different classes, some but not all"),
        ({"special_classes": (3,), "unlabelled": UNIFORM}, "needs a label for every example"),
    ],
)
def test_what_cannot_be_is_reported_in_a_sentence(changes, sentence):
    with pytest.raises(DataError, match=sentence) as found:
        of(**changes)
    assert "\n" not in str(found.value)


def test_labels_made_up_for_a_rehearsal_lack_what_the_transfer_set_lacks():
    for changes in (
        {},
        {"omit_classes": (3,)},
        {"unlabelled": UNIFORM},
        {"unlabelled": UNIFORM, "labelled_share": 0.0},
        {"special_classes": (7, 2)},
    ):
        dataset = replace(DIGITS, fraction=0.5)
        ours, real = replace(TRAIN, **changes).marks(1000, Classes(10)), of(dataset, **changes).spec.labels
        assert len(ours) == 1000 and set(ours.tolist()) == set(real.tolist())


def test_gaussians_have_the_mean_and_covariance_of_each_class():
    g = torch.Generator().manual_seed(0)
    mixing = torch.randn(2, 4, 4, generator=g) * 12
    pixels = torch.randn(2, 300, 4, generator=g) @ mixing + 128
    images = pixels.clamp(0, 255).round().to(torch.uint8).view(600, 2, 2, 1)
    home = TensorSet(images, torch.arange(2).repeat_interleave(300), 255)
    dataset = synthetic(input_shape=(1, 2, 2), mean=(0.5,), std=(0.2,))
    found = Gaussians(count=20_000, shrinkage=0.25, seed=0).take(home, dataset)
    assert len(found) == 20_000 and bool((found.labels == UNLABELLED).all())
    for label, of in enumerate(found.images.double().flatten(1).split(10_000)):
        own = images[home.labels == label].double().flatten(1)
        assert (of.mean(0) - own.mean(0)).abs().max() < 1.5
        wanted = 0.75 * own.T.cov() + 0.25 * own.T.cov().diag().diag()
        # sampling and clamping to bytes leave some percent
        assert (of.T.cov() - wanted).abs().max() < 0.1 * wanted.abs().max()


def test_gaussians_depend_on_their_seed_and_deal_classes_evenly():
    home = DIGITS.pools()[0]
    one, again, other = (Gaussians(count=25, shrinkage=0.1, seed=s).take(home, DIGITS).images for s in (0, 0, 1))
    assert len(one) == 25 and torch.equal(one, again) and not torch.equal(one, other)
    assert len(Gaussians(count=None, shrinkage=0.1, seed=0).take(home, DIGITS)) == len(home)
