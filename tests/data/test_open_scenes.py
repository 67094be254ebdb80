"""Scenes with novel classes: hidden boxes, proposals, pseudo boxes, batches in turn."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torchvision.ops import box_iou

from kdx.config.compose import compose
from kdx.core.seed import generator
from kdx.data.order import Alternation, Turns
from kdx.data.proposals import Proposals, jittered, oracle, read_proposals, recall, write_proposals
from kdx.data.sets import DataError
from kdx.data.sources.open_scenes import LOOKS, OpenScenes
from kdx.runs.build import make

FEW = ("train_size=30", "image_size=20", "test_size=15", "vision_scenes=20", "vision.steps=2", "train_subset=10")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> OpenScenes:
    folder = tmp_path_factory.mktemp("proposals")
    overrides = ["dataset=open_scenes", *(f"dataset.{o}" for o in FEW), f"dataset.cache='{folder}'"]
    return make(compose(overrides).config["dataset"])


def test_every_shape_and_colour_of_a_novel_class_is_in_a_base_class(scenes: OpenScenes):
    base = [LOOKS[i].split("_") for i in range(20) if i not in scenes.novel]
    for i in scenes.novel:
        colour, shape = LOOKS[i].split("_")
        assert any(c == colour for c, _ in base) and any(s == shape for _, s in base)
    assert len(scenes.novel) == 5 and len(base) == 15


def test_novel_objects_have_no_box_in_training_and_all_have_one_in_the_test_set(scenes: OpenScenes):
    train, test = scenes.load()
    novel = torch.tensor(list(scenes.novel))
    labels, by_image = train.targets["box_labels"], train.targets["by_image"]
    assert by_image.sum() == 20 and len(train) == 50
    assert not torch.isin(labels, novel).any() and bool((labels[by_image] == -1).all())
    assert torch.isin(test.targets["box_labels"], novel).any()
    # image-labelled scenes name novel objects; one box for each class that is there
    kinds = train.targets["pseudo_labels"]
    assert torch.isin(kinds[by_image], novel).any() and bool((kinds[~by_image] == -1).all())
    for row in kinds[by_image]:
        real = row[row >= 0]
        assert len(real) and len(real.unique()) == len(real)


def test_scenes_are_a_function_of_the_seed_and_training_ones_of_no_other_size(scenes: OpenScenes):
    first, _ = scenes.load()
    longer, _ = replace(scenes, test_size=16).load()
    other, _ = replace(scenes, seed=1).load()
    assert first.held is not None and longer.held is not None and other.held is not None
    assert torch.equal(first.held, longer.held) and not torch.equal(first.held, other.held)
    assert torch.equal(first.targets["proposals"], longer.targets["proposals"])


def test_without_novel_objects_no_object_is_novel_even_unlabelled(scenes: OpenScenes):
    train, _ = replace(scenes, novel_objects=False, image_size=0).load()
    real = train.targets["boxes"][..., 2] > train.targets["boxes"][..., 0]
    assert torch.equal(real, train.targets["box_labels"] >= 0)
    with_novel, _ = replace(scenes, image_size=0).load()
    real = with_novel.targets["boxes"][..., 2] > with_novel.targets["boxes"][..., 0]
    assert int(real.sum()) > int((with_novel.targets["box_labels"] >= 0).sum())


def test_proposals_find_unlabelled_objects_too(scenes: OpenScenes):
    train, _ = scenes.load()
    boxes, found = train.targets["boxes"], train.targets["proposals"]
    best = [
        box_iou(b[b[:, 2] > b[:, 0]], p).amax(1) for b, p in zip(boxes, found, strict=True) if (b[:, 2] > b[:, 0]).any()
    ]
    assert float(torch.cat(best).mean()) > 0.7 and float((torch.cat(best) > 0.5).double().mean()) > 0.9


def test_the_file_of_proposals_gives_the_same_ones_and_is_checked(scenes: OpenScenes, tmp_path: Path):
    train, _ = scenes.load()
    files = [p for p in Path(scenes.cache).glob("*.safetensors") if p.stat().st_size and _belongs(p, train.targets)]
    file = min(files)
    key = file.stem.removeprefix("open_scenes-")
    again = read_proposals(file, key)
    assert torch.equal(again.boxes, train.targets["proposals"]) and 0 <= again.accuracy <= 1
    with pytest.raises(DataError, match=r"it belongs to other settings.*delete the file"):
        read_proposals(file, "another")
    (tmp_path / "broken.safetensors").write_bytes(file.read_bytes()[:100])
    with pytest.raises(DataError, match=r"broken\.safetensors cannot be used"):
        read_proposals(tmp_path / "broken.safetensors", key)


def _belongs(path: Path, targets: dict[str, torch.Tensor]) -> bool:
    return torch.equal(
        read_proposals(path, path.stem.removeprefix("open_scenes-")).embeddings, targets["proposal_embeddings"]
    )


def test_shapes_of_proposals_must_match(tmp_path: Path):
    with pytest.raises(DataError, match=r"embeddings \[N, K, D\], got \[2, 5, 4\] and \[2, 4, 8\]"):
        Proposals(torch.zeros(2, 5, 4), torch.zeros(2, 4, 8), 0.5)
    made = Proposals(torch.rand(2, 5, 4), torch.rand(2, 5, 8), 0.25)
    write_proposals(tmp_path / "a.safetensors", made, "key")
    read = read_proposals(tmp_path / "a.safetensors", "key")
    assert torch.equal(read.boxes, made.boxes) and read.accuracy == 0.25


def test_jitter_has_its_size_and_boxes_stay_inside():
    box = torch.tensor([[30.0, 30.0, 60.0, 50.0]]).repeat(4000, 1)
    moved = jittered(box, 0.1, (96, 96), generator(0, "jitter"))
    spread = (moved - box).std(0)
    torch.testing.assert_close(spread, torch.tensor([3.0, 2.0, 3.0, 2.0]), rtol=0.06, atol=0)
    edge = jittered(torch.tensor([[0.0, 0.0, 10.0, 90.0]]).repeat(500, 1), 0.5, (96, 64), generator(1, "jitter"))
    assert bool((edge[:, :2] >= 0).all()) and bool((edge[:, 2] <= 64).all()) and bool((edge[:, 3] <= 96).all())
    assert bool((edge[:, 2:] - edge[:, :2] >= 2 - 1e-5).all())


def test_an_empty_scene_has_proposals():
    found = oracle(torch.zeros(1, 4), torch.tensor([False]), 5, (32, 48), 0.1, generator(0, "empty"))
    assert found.shape == (5, 4) and bool((found[:, 2:] >= found[:, :2]).all())


def test_batches_alternate_and_an_epoch_is_one_pass_over_the_first_kind():
    second = torch.arange(26) >= 15
    turns = Turns(Alternation(second, 2), 4)
    order = turns.draw(0, 3)
    assert len(turns) == len(order) == 3 * 3 * 4
    kinds = second[order].view(-1, 4)
    assert kinds.all(1).tolist() == [False, True, True] * 3 and not kinds[::3].any()
    first = order.view(-1, 4)[::3].flatten()
    assert len(first.unique()) == 12
    # rounds of the second kind hold each example once
    others = order.view(-1, 4)[[1, 2, 4, 5, 7, 8]].flatten()
    assert len(others[:11].unique()) == 11 and len(others[11:22].unique()) == 11
    assert torch.equal(order, turns.draw(0, 3)) and not torch.equal(order, turns.draw(0, 4))


def test_too_few_examples_of_a_kind_are_refused():
    with pytest.raises(DataError, match="got batch_size 8, 15 and 5 examples"):
        Turns(Alternation(torch.arange(20) >= 15, 1), 8)


def test_wrong_settings_are_refused(scenes: OpenScenes):
    with pytest.raises(DataError, match="has no validation split; set dataset.val_fraction=0"):
        replace(scenes, val_fraction=0.1).load()
    with pytest.raises(DataError, match="different positions of classes, 0 to 19"):
        replace(scenes, novel=[3, 25]).load()


def test_proposals_of_a_detector_are_its_own_most_certain_boxes(tmp_path: Path):
    from kdx.core.errors import UserError
    from kdx.models.weights import save_weights

    file = tmp_path / "weights.safetensors"
    few = [*(f"dataset.{o}" for o in FEW), f"dataset.cache='{tmp_path}'", f"dataset.proposer.weights='{file}'"]
    data = make(compose(["dataset=open_scenes_rpn", *few]).config["dataset"])
    with pytest.raises(UserError, match=r"dataset\.proposer\.weights=.*No such file"):
        data.load()
    other = make(compose(["dataset=open_scenes_rpn", *few]).config["dataset"]).proposer.net
    save_weights(file, other, {})
    train, _ = data.load()
    found = train.targets["proposals"]
    assert train.held is not None and found.shape == (50, 5, 4) and train.targets["proposal_embeddings"].shape[1] == 5
    pixels = (train.held[7:9].permute(0, 3, 1, 2) / 255 - 0.5) / 0.25
    with torch.no_grad():
        outputs = other.eval()({"images": pixels, "sizes": torch.tensor([[96, 96], [96, 96]])})
    regions = outputs.features["regions"]
    for i in range(2):
        torch.testing.assert_close(found[7 + i], regions[outputs.owner == i][:5], rtol=1e-4, atol=1e-3)
    # other weights, other proposals
    torch.manual_seed(1)
    again = make(compose(["dataset=open_scenes_rpn", *few]).config["dataset"])
    for p in other.parameters():
        p.data.add_(0.1 * torch.randn_like(p))
    save_weights(file, other, {})
    assert not torch.equal(again.load()[0].targets["proposals"], found)


def test_recall_counts_each_wanted_object_once():
    objects = torch.tensor([[[0.0, 0, 10, 10], [20, 20, 30, 30]], [[0, 0, 10, 10], [0, 0, 0, 0]]])
    found = torch.tensor([[[0.0, 0, 10, 6], [0, 0, 10, 10]], [[0, 5, 10, 10], [40, 40, 50, 50]]])
    assert recall(found, objects, torch.tensor([[True, False], [False, False]])) == 1
    assert recall(found, objects, torch.tensor([[True, True], [True, False]])) == pytest.approx(2 / 3)
    assert recall(found, objects, torch.tensor([[True, True], [True, False]]), 0.6) == pytest.approx(1 / 3)
