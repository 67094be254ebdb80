"""Laws of terms on texts: padding, heads, layers, and networks and data that they refuse."""

import math
from collections.abc import Callable

import pytest
import torch
from law_case import SPEC as IMAGES
from law_case import START
from laws_texts import SPEC, encoder
from small_encoder import SmallEncoder
from text_pair import LENGTH, PAIR, VOCABULARY, lines
from text_pair import SPEC as HIDDEN
from torch import Tensor
from torch.nn import functional as F

from kdx.core.batch import Batch
from kdx.core.outputs import Outputs, Shapes
from kdx.losses.base.term import Term
from kdx.losses.base.tokens import layer_map
from kdx.losses.features.distilbert import HiddenCosine
from kdx.losses.features.pkd import PKD, patient_layers
from kdx.losses.features.tinybert import TinyBERTAttention, TinyBERTHidden
from kdx.losses.logits.cross_entropy import CrossEntropy
from kdx.losses.logits.kd import KD
from kdx.losses.relations.minilm import MiniLMAttention, MiniLMValues
from kdx.losses.relations.minilm_v2 import MiniLMRelation, relation_heads
from kdx.losses.wrappers.over_rows import OverRows
from kdx.models.probe import probe

TERMS: dict[str, Callable[[], Term]] = {
    "pkd": lambda: PKD("skip"),
    "attention": lambda: TinyBERTAttention(None, "all"),
    "hidden": lambda: TinyBERTHidden(None, "example", "none"),
    "projected": lambda: TinyBERTHidden(None, "all", "shared"),
    "cosine": lambda: HiddenCosine(None, None, "all"),
    "minilm": lambda: MiniLMAttention(None, None, "example"),
    "values": lambda: MiniLMValues(None, None, "all"),
    "queries": lambda: MiniLMRelation("query", 2, None, None, "example"),
    "keys": lambda: MiniLMRelation("key", 4, 1, 3, "all"),
    "tokens": lambda: OverRows(KD(2.0, "batchmean"), "all", 5),
    "hidden tokens": lambda: OverRows(CrossEntropy(0.0), "all", None),
}


def networks() -> tuple[SmallEncoder, SmallEncoder]:
    student, teacher = ({**sizes, "heads": 2} for sizes in PAIR)
    return SmallEncoder(**student, num_classes=None).double(), SmallEncoder(**teacher, num_classes=None).double()


def built(name: str, *nets: SmallEncoder) -> Term:
    term = TERMS[name]()
    term.build(*(probe(net, HIDDEN.inputs) for net in nets), HIDDEN)
    return term.double()


def padded(inputs: dict[str, Tensor], columns: int) -> dict[str, Tensor]:
    """The same texts with further columns of padding; their ids are those of real tokens."""
    ids = F.pad(inputs["input_ids"], (0, columns), value=3)
    return {"input_ids": ids, "attention_mask": F.pad(inputs["attention_mask"], (0, columns))}


@pytest.mark.parametrize("name", TERMS)
def test_more_padding_changes_neither_value_nor_gradient(name: str):
    student, teacher = networks()
    term, inputs = built(name, student, teacher), lines(5)
    labels = torch.where(inputs["attention_mask"] != 0, torch.randint(-1, VOCABULARY, (5, LENGTH)), -1)
    found = []
    for columns in (0, 1, 7):
        given = padded(inputs, columns)
        batch = Batch(given, {"labels": F.pad(labels, (0, columns), value=-1)}, torch.arange(5))
        student.zero_grad()
        rows = term(student(given), teacher(given), batch, START)
        rows.mean().backward()
        found.append((rows.detach(), [p.grad.clone() for p in student.parameters() if p.grad is not None]))
    assert found[0][0].abs().sum() > 0.1
    for rows, gradients in found[1:]:
        torch.testing.assert_close(rows, found[0][0], rtol=1e-9, atol=1e-12)
        for mine, expected in zip(gradients, found[0][1], strict=True):
            torch.testing.assert_close(mine, expected, rtol=1e-7, atol=1e-11)


@pytest.mark.parametrize("name", [name for name in TERMS if name not in ("projected", "keys", "hidden tokens")])
def test_identical_networks_give_zero(name: str):
    student, _ = networks()
    batch = Batch(lines(5), {"labels": torch.zeros(5, LENGTH).long()}, torch.arange(5))
    outputs = student(batch.inputs)
    assert built(name, student, student)(outputs, outputs, batch, START).abs().max() < 1e-12


def heads(count: int, d: int) -> Tensor:
    return torch.randn(3, count, 4, d, dtype=torch.float64)


def relation(student: Tensor, teacher: Tensor, count: int) -> Tensor:
    """The value of the relations of the last of two layers."""
    term = MiniLMRelation("value", count, None, None, "all")
    shapes = [Shapes((5,), {"value.2": tuple(t.shape[1:])}) for t in (student, teacher)]
    term.build(*shapes, SPEC)
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0]])
    pair = (Outputs(torch.zeros(3, 5), {"value.2": t}) for t in (student, teacher))
    return term(*pair, Batch({"attention_mask": mask}, {}, torch.arange(3)), START)


def test_the_students_number_of_heads_does_not_change_minilm_v2():
    mine, theirs = heads(4, 3), heads(6, 4)
    expected = relation(mine, theirs, 2)
    for count in (1, 2, 6, 12):  # the same vectors, cut into other heads
        other = mine.transpose(1, 2).flatten(2).unflatten(2, (count, -1)).transpose(1, 2)
        torch.testing.assert_close(relation(other, theirs, 2), expected)


def test_repeated_heads_do_not_change_minilm_v2():
    mine, theirs = heads(4, 3), heads(6, 4)
    expected = relation(mine, theirs, 2)
    # twice the heads on both sides, in twice the relation heads
    torch.testing.assert_close(relation(mine.repeat(1, 2, 1, 1), theirs.repeat(1, 2, 1, 1), 4), expected)
    # a student twice as wide, whose inner products X X^T / sqrt(d) are the same
    for count in (2, 3):
        copies = mine.unflatten(1, (2, 2)).repeat(1, 1, count, 1, 1).flatten(1, 2) / count**0.25
        torch.testing.assert_close(relation(copies, theirs, 2), expected)


def test_relation_heads_keep_every_coordinate_in_order():
    vectors = torch.arange(24.0).view(1, 2, 3, 4)
    cut = relation_heads(vectors, 4)
    assert cut.shape == (1, 4, 3, 2)
    assert torch.equal(cut.transpose(1, 2).flatten(2), vectors.transpose(1, 2).flatten(2))


def refusal(term: Term, student: dict, teacher: dict, spec=SPEC) -> str:
    with pytest.raises(ValueError) as error:
        term.build(Shapes((5,), student), Shapes((5,), teacher), spec)
    assert "\n" not in str(error.value) and len(str(error.value)) < 300
    return str(error.value)


def test_unequal_heads_are_refused_and_the_way_out_is_named():
    few, many = encoder(2, 2, 3), encoder(4, 3, 2)
    for term in (TinyBERTAttention(None, "all"), MiniLMAttention(None, None, "all"), MiniLMValues(None, None, "all")):
        told = refusal(term, few, many)
        assert "the student has 2, the teacher 3" in told and "method=minilm_v2" in told
    MiniLMRelation("key", 6, None, None, "all").build(Shapes((5,), few), Shapes((5,), many), SPEC)


def test_unequal_widths_are_refused_and_the_way_out_is_named():
    narrow, wide = encoder(2, 2, 3), encoder(4, 2, 4)
    for term in (PKD("last"), HiddenCosine(None, None, "all")):
        told = refusal(term, narrow, wide)
        assert "the student has 6, the teacher 8" in told and "method=tinybert_intermediate" in told
    assert "projection=shared" in refusal(TinyBERTHidden(None, "all", "none"), narrow, wide)
    assert "must divide both" in refusal(MiniLMRelation("key", 4, None, None, "all"), narrow, wide)


@pytest.mark.parametrize("name", [name for name in TERMS if "tokens" not in name])
def test_images_and_other_networks_are_refused(name: str):
    features = encoder(2, 2, 4)
    assert "inputs of this data set are images" in refusal(TERMS[name](), features, features, IMAGES)
    maps = {"stage1": (4, 8, 8), "pooled": (4,)}
    told = refusal(TERMS[name](), maps, maps)
    assert "the student" in told and "stage1" in told


def test_layers_that_do_not_exist_are_refused():
    few, many = encoder(2, 2, 3), encoder(3, 2, 3)
    assert "3, which is no whole number; set layers" in refusal(TinyBERTAttention(None, "all"), few, many)
    TinyBERTAttention([1, 3], "all").build(Shapes((5,), few), Shapes((5,), many), SPEC)
    for layers in ([1], [3, 1], [2, 2], [0, 1], [1, 4]):
        assert f"got layers={layers}" in refusal(TinyBERTAttention(layers, "all"), few, many)
    assert "which has the layers 1 to 2" in refusal(HiddenCosine(3, None, "all"), few, many)
    assert "which has the layers 1 to 3" in refusal(HiddenCosine(None, 4, "all"), few, many)
    with pytest.raises(ValueError, match="2 layers or more and a teacher with as many"):
        patient_layers("skip", 1, 4)
    with pytest.raises(ValueError, match="'skip', 'last' or a list"):
        patient_layers("every", 2, 4)  # pyright: ignore[reportArgumentType]


def test_layer_maps_are_those_of_the_papers():
    assert layer_map(None, 4, 12, "TinyBERT") == [3, 6, 9, 12] and layer_map(None, 6, 6, "T") == [1, 2, 3, 4, 5, 6]
    assert patient_layers("skip", 6, 12) == [2, 4, 6, 8, 10] and patient_layers("last", 6, 12) == [7, 8, 9, 10, 11]
    assert patient_layers([1, 2, 5], 4, 6) == [1, 2, 5]


def test_the_class_token_is_the_first():
    states = torch.randn(2, 4, 6, dtype=torch.float64)
    term = PKD("last")
    shapes = Shapes((5,), encoder(2, 2, 3))
    term.build(shapes, shapes, SPEC)
    others = states.clone()
    others[:, 1:] += 1
    batch = Batch({"attention_mask": torch.ones(2, 4)}, {}, torch.arange(2))
    pair = (Outputs(torch.zeros(2, 5), {"hidden.1": each}) for each in (states, others))
    assert term(*pair, batch, START).abs().max() == 0
    opposite = Outputs(torch.zeros(2, 5), {"hidden.1": -2 * states})
    told = term(Outputs(torch.zeros(2, 5), {"hidden.1": states}), opposite, batch, START)
    assert told.tolist() == pytest.approx([4 / 6, 4 / 6])


def test_a_projection_is_one_layer_with_a_bias_for_embeddings_and_all_layers():
    term = TinyBERTHidden(None, "all", "shared")
    term.build(Shapes((5,), encoder(2, 2, 3)), Shapes((5,), encoder(4, 2, 4)), SPEC)
    assert {name: tuple(p.shape) for name, p in term.named_parameters()} == {
        "project.weight": (8, 6),
        "project.bias": (8,),
    }
    assert term.student_roles() == ("embeddings", "hidden.1", "hidden.2")
    assert term.teacher_roles() == ("embeddings", "hidden.2", "hidden.4")


def test_the_worst_cosine_is_two_and_scale_plays_no_part():
    term = HiddenCosine(1, 1, "example")
    shapes = Shapes((5,), encoder(1, 2, 3))
    term.build(shapes, shapes, SPEC)
    states = torch.randn(2, 4, 6)
    mask = torch.tensor([[1, 1, 1, 1], [1, 0, 0, 0]])
    batch = Batch({"attention_mask": mask}, {}, torch.arange(2))
    for scale, expected in ((7.0, 0.0), (-0.1, 2.0)):
        pair = (Outputs(torch.zeros(2, 5), {"hidden.1": each}) for each in (states, scale * states))
        assert term(*pair, batch, START).tolist() == pytest.approx([expected, expected], abs=1e-6)


def test_attention_to_one_token_is_log_n_from_a_uniform_one():
    scores = torch.zeros(1, 2, 4, 4)
    certain = scores.clone()
    certain[..., 0] = 80.0
    term = MiniLMAttention(None, None, "example")
    shapes = Shapes((5,), encoder(1, 2, 3))
    term.build(shapes, shapes, SPEC)
    for tokens in (2, 3, 4):
        mask = (torch.arange(4) < tokens).long()[None]
        pair = (Outputs(torch.zeros(1, 5), {"attention.1": each}) for each in (scores, certain))
        value = term(*pair, Batch({"attention_mask": mask}, {}, torch.arange(1)), START)
        assert value.item() == pytest.approx(math.log(tokens), rel=1e-6)
