"""Stages of open-vocabulary detection: which parameters learn from which batches."""

import pytest
import torch
from conftest import OPEN, WITHOUT_IMAGES
from safetensors.torch import load_file

from kdx.core.errors import UserError
from kdx.core.schedule import Progress
from kdx.core.weigh import weigh
from kdx.methods.open_vocabulary import OpenVocabulary
from kdx.models.openvocab.detector import OpenVocabularyRCNN
from kdx.runs.run import run

START = Progress(0, 8, 8.0)


def scene(tiny, built, *overrides: str, data: tuple[str, ...] = OPEN):
    trainer = built(tiny(*overrides, data=data))
    method = trainer.method.train()
    assert isinstance(method, OpenVocabulary) and isinstance(method.student, OpenVocabularyRCNN)
    return method, list(trainer.loader.epoch(0))


def gradients(method: OpenVocabulary, batch, names: tuple[str, ...]) -> set[str]:
    """Names of the student's parameters that some terms reach."""
    method.zero_grad(set_to_none=True)
    step = method(batch, START)
    torch.stack([step.terms[name] for name in names]).sum().backward()
    reached = {n for n, p in method.student.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    method.zero_grad(set_to_none=True)
    return reached


def test_pseudo_boxes_touch_the_classifier_and_no_box(tiny, built):
    method, batches = scene(tiny, built, "method=ovd_pis")
    boxes, images = batches[:2]
    assert not boxes.target("by_image").any() and images.target("by_image").all()
    reached = gradients(method, images, ("pis",))
    assert "classifier.project.weight" in reached and not any(n.startswith(("rpn", "regressor")) for n in reached)
    step = method(images, START)
    assert all(float(step.terms[name]) == 0 for name in ("objectness", "proposal_boxes", "classes", "boxes"))
    assert float(method(boxes, START).terms["pis"]) == 0


def test_classes_of_boxes_leave_novel_columns_alone(tiny, built):
    method, batches = scene(tiny, built, "method=ovd_base", data=WITHOUT_IMAGES)
    seen: list[torch.Tensor] = []
    method.student.register_forward_hook(lambda m, i, out: (out.logits.retain_grad(), seen.append(out.logits))[0])
    method(batches[0], START).terms["classes"].backward()
    assert seen[0].grad is not None
    columns = seen[0].grad.abs().sum(0)
    novel = [0, 5, 10, 15, 16]
    base = [i for i in range(20) if i not in novel]
    assert float(columns[novel].sum()) == 0 and float(columns[20]) == 0 and bool((columns[base] > 0).all())


def test_the_frozen_projection_keeps_its_bits_and_region_distillation_goes_through_it(tiny, built):
    method, batches = scene(tiny, built, "method=ovd_rkd_pis", "student.net.weight_transfer=true")
    before = method.student.classifier.project.weight.clone()
    reached = gradients(method, batches[0], ("l1", "irm"))
    assert any(n.startswith("pyramid") for n in reached)
    assert not any(n.startswith("classifier") for n in reached)
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.1, weight_decay=0.1)
    for batch in batches[:4]:
        weigh(method(batch, START).terms, method.weights, START).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert torch.equal(method.student.classifier.project.weight, before)


def test_a_student_that_agrees_with_its_proposals_loses_nothing(tiny, built):
    method, batches = scene(tiny, built, "method=ovd_rkd", data=WITHOUT_IMAGES)
    batch = batches[0]
    method.eval()
    with torch.no_grad():
        own = method.student({**batch.inputs, "proposals": batch.target("proposals")}).features["proposals.embeddings"]
        step = method(batch.with_targets(proposal_embeddings=own), START)
    assert float(step.terms["l1"]) == pytest.approx(0, abs=1e-6)
    assert float(step.terms["irm"]) == pytest.approx(0, abs=1e-6)


def test_the_order_of_proposals_changes_nothing(tiny, built):
    method, batches = scene(tiny, built, "method=ovd_rkd", data=WITHOUT_IMAGES)
    batch, turned = batches[0], torch.tensor([3, 1, 4, 0, 2])
    method.eval()
    names = ("proposals", "proposal_embeddings")
    other = batch.with_targets(**{name: batch.target(name)[:, turned] for name in names})
    with torch.no_grad():
        first, second = (method(b, START).terms for b in (batch, other))
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=1e-4, atol=1e-6)


def test_data_and_terms_must_fit(tiny, built):
    with pytest.raises(UserError, match="no term of this method reads image-labelled scenes; set dataset.image_size=0"):
        scene(tiny, built, "method=ovd_base")
    with pytest.raises(UserError, match="method.terms.pis reads image-labelled scenes, and this data set has none"):
        scene(tiny, built, "method=ovd_pis", data=WITHOUT_IMAGES)
    method, batches = scene(tiny, built, "method=ovd_rkd", data=WITHOUT_IMAGES)
    longer = batches[0].with_targets(proposal_embeddings=torch.ones(8, 5, 512))
    with pytest.raises(ValueError, match="embeddings of 512 numbers, and the class names of the student 384"):
        method(longer, START)


def test_a_scene_without_a_known_class_adds_nothing(tiny, built):
    method, batches = scene(tiny, built, "method=ovd_pis")
    images = batches[1]
    none = images.with_targets(pseudo_labels=torch.full_like(images.target("pseudo_labels"), -1))
    assert float(method(none, START).terms["pis"]) == 0


def test_a_chain_of_runs_measures_base_and_novel_classes(tiny):
    first = run(tiny("method=ovd_base", data=WITHOUT_IMAGES))
    start = f"student.checkpoint='{first.folder}'"
    last = run(tiny("method=ovd_rkd_pis", "student.net.weight_transfer=true", start, data=OPEN))
    found = last.data["metrics"]["last"]
    wanted = ("ap50_base", "ap50_novel", "region_accuracy_base", "region_accuracy_novel")
    assert all(0 <= found[f"test/{name}"] <= 1 for name in wanted)
    before, after = (load_file(str(r.folder / "student.safetensors")) for r in (first, last))
    name = "classifier.project.weight"
    assert torch.equal(before[name], after[name]) and not torch.equal(
        before["rpn.conv.0.0.weight"], after["rpn.conv.0.0.weight"]
    )
