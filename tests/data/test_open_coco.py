"""COCO with novel classes: hidden boxes, and proposals from a file."""

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from kdx.config.compose import compose
from kdx.data.sets import DataError
from kdx.data.sources.open_coco import OpenCoco
from kdx.runs.build import make

ROOT = Path(os.environ.get("KDX_DATA", "/nowhere"))
pytestmark = pytest.mark.skipif(not (ROOT / "coco128").is_dir(), reason="no coco128 under KDX_DATA")


def coco(*overrides: str) -> OpenCoco:
    given = ["dataset=open_coco128", f"dataset.root='{ROOT}'", "dataset.in_memory=false", *overrides]
    return make(compose(given).config["dataset"])


def made(path: Path, pseudo: bool, rows: int = 128) -> Path:
    g = torch.Generator().manual_seed(0)
    low = 100 * torch.rand(rows, 5, 2, generator=g)
    file = {"boxes": torch.cat([low, low + 60], 2), "embeddings": torch.randn(rows, 5, 384, generator=g)}
    if pseudo:
        file |= {
            "pseudo_boxes": file["boxes"][:, :2].contiguous(),
            "pseudo_labels": torch.tensor([[3, -1]]).repeat(rows, 1),
        }
    save_file(file, str(path))
    return path


def test_novel_classes_have_no_box_in_training_and_some_in_the_test_set():
    data = coco()
    train, test = data.load()
    novel = torch.tensor(data.task.novel)
    assert (len(train), len(test)) == (96, 32) and len(novel) == 17 and data.task.num_outputs == 65
    assert not torch.isin(train.targets["box_labels"], novel).any()
    assert torch.isin(test.targets["box_labels"], novel).any()
    assert data.task.count == 0 and not data.task.has_images


@pytest.mark.slow
def test_proposals_belong_to_their_images_in_pixels_of_the_input(tmp_path: Path):
    path = made(tmp_path / "p.safetensors", pseudo=True)
    data = coco(f"dataset.proposals='{path}'", "dataset.image_batches=2")
    train, _ = data.load()
    by_image = train.targets["by_image"]
    assert len(train) == 192 and by_image.sum() == 96 and bool((train.targets["box_labels"][by_image] == -1).all())
    whole = coco()._part("annotations/instances_train2017.json", "train2017", "all")
    from safetensors.torch import load_file

    file, scales = load_file(str(path)), whole.targets["scales"]
    for i in (0, 50, 95, 96, 191):
        row = int(train.origin[i])
        expected = file["boxes"][row] * scales[row].repeat(2)
        torch.testing.assert_close(train.targets["proposals"][i], expected)
        assert torch.equal(train.targets["proposal_embeddings"][i], file["embeddings"][row])
    assert torch.equal(train.origin[:96], train.origin[96:])
    assert train.targets["pseudo_labels"][0].tolist() == [3, -1]


def test_files_that_do_not_fit_are_refused(tmp_path: Path):
    short = made(tmp_path / "short.safetensors", pseudo=False, rows=100)
    with pytest.raises(DataError, match=r"dataset.proposals: .*short.* are not those of 128 images with 5 proposals"):
        coco(f"dataset.proposals='{short}'").load()
    plain = made(tmp_path / "plain.safetensors", pseudo=False)
    with pytest.raises(DataError, match="dataset.image_batches=1 needs pseudo boxes"):
        coco(f"dataset.proposals='{plain}'", "dataset.image_batches=1").load()
    with pytest.raises(DataError, match="need dataset.proposals with pseudo boxes"):
        coco("dataset.image_batches=1").load()
    with pytest.raises(DataError, match="dataset.novel has 'dragon'"):
        _ = coco("dataset.novel=[dragon]").task
