"""OverRows against a Python loop over tokens."""

import re
import textwrap

import pytest
import torch
from torch import Tensor, nn

from kdx.config.compose import compose
from kdx.config.layout import OWN, add_config_dir
from kdx.config.validate import check
from kdx.core.batch import Batch
from kdx.core.outputs import Outputs, Shapes
from kdx.core.schedule import Progress
from kdx.losses.base.term import Term
from kdx.losses.base.weighting import Constant
from kdx.losses.features.fitnet import FitNet
from kdx.losses.logits.binary import BinaryKL
from kdx.losses.logits.cross_entropy import CrossEntropy
from kdx.losses.logits.dist import DIST, inter_class, intra_class
from kdx.losses.logits.dkd import DKD
from kdx.losses.logits.ensemble import EachMember
from kdx.losses.logits.kd import KD
from kdx.losses.logits.pskd import PastPredictions
from kdx.losses.wrappers.logit_standardization import LogitStandardization
from kdx.losses.wrappers.over_rows import OverRows
from kdx.models.teachers.frozen import Frozen
from kdx.runs.build import make
from kdx.tasks.classes import image_classes

CLASSES, TOKENS = 5, 4
SPEC = image_classes(CLASSES, (3, 8, 8), 100, (0.0,), (1.0,))
START = Progress(0, 10, 10)
# no token of the third example counts
MASK = torch.tensor([[1, 1, 1, 1], [1, 0, 0, 1], [0, 0, 0, 0]]).bool()
ROWWISE = {
    "kd": lambda: KD(4.0, "batchmean"),
    "dkd": lambda: DKD(1.0, 8.0, 2.0),
    "dist over classes": lambda: DIST(2.0, 0.0, 4.0),
    "ce": lambda: CrossEntropy(0.1),
    "lskd": lambda: LogitStandardization(KD(2.0, "batchmean")),
    "each member": lambda: EachMember(KD(2.0, "batchmean"), Constant(), "mean"),
}


def data(mask: Tensor | None = MASK, seed: int = 0) -> tuple[Outputs, Outputs, Batch]:
    draw = torch.Generator().manual_seed(seed)
    mine, theirs = (torch.randn(3, TOKENS, CLASSES, generator=draw, dtype=torch.float64) for _ in range(2))
    labels = torch.randint(CLASSES, (3, TOKENS), generator=draw)
    features = {} if mask is None else {"mask": mask}
    return Outputs(mine, features), Outputs(theirs), Batch.of_classes(torch.zeros(3, 1), labels, torch.arange(3))


def token(term: Term, student: Outputs, teacher: Outputs, batch: Batch, i: int, j: int) -> Tensor:
    """The value of the term on one token alone."""
    pair = (Outputs(outputs.logits[i, j][None]) for outputs in (student, teacher))
    return term(*pair, Batch.of_classes(torch.zeros(1, 1), batch.labels[i, j][None], batch.index[i][None]), START)[0]


@pytest.mark.parametrize("name", ROWWISE)
def test_equals_the_loop_over_tokens(name: str):
    student, teacher, batch = data()
    each = [[token(ROWWISE[name](), student, teacher, batch, i, j) for j in MASK[i].nonzero()[:, 0]] for i in range(3)]
    own = OverRows(ROWWISE[name](), "example", None)(student, teacher, batch, START)
    means = [torch.stack(values).mean() for values in each if values]
    torch.testing.assert_close(own.mean(), torch.stack(means).mean())
    torch.testing.assert_close(own[:2] / 1.5, torch.stack(means))
    assert own[2] == 0
    every = OverRows(ROWWISE[name](), "all", None)(student, teacher, batch, START)
    torch.testing.assert_close(every.mean(), torch.stack([v for values in each for v in values]).mean())
    assert every[2] == 0


@pytest.mark.parametrize("average", ["example", "all"])
@pytest.mark.parametrize("mask", [None, MASK], ids=["all", "masked"])
@pytest.mark.parametrize("name", [name for name in ROWWISE if "dist" not in name])
def test_chunks_change_neither_the_value_nor_the_gradient(name: str, mask: Tensor | None, average):
    results = []
    for chunk in (None, 1, 4, 5, 100):
        student, teacher, batch = data(mask)
        leaf = student.logits.requires_grad_()
        rows = OverRows(ROWWISE[name](), average, chunk)(student, teacher, batch, START)
        rows.mean().backward()
        results.append((rows.detach(), leaf.grad))
    for rows, gradient in results[1:]:
        torch.testing.assert_close(rows, results[0][0], rtol=1e-6, atol=1e-12)
        torch.testing.assert_close(gradient, results[0][1], rtol=1e-6, atol=1e-12)


def test_a_chunk_bounds_the_rows_of_a_call():
    student, teacher, batch = data(None)
    sizes, term = [], KD(4.0, "batchmean")
    term.register_forward_pre_hook(lambda module, given: sizes.append(len(given[0].logits)))
    OverRows(term, "all", 5)(student, teacher, batch, START)
    assert sizes == [5, 5, 2]


def test_masked_rows_have_no_part_in_what_relates_rows():
    student, teacher, batch = data()
    z, v = (outputs.logits[MASK] for outputs in (student, teacher))
    expected = 2 * inter_class(z, v, 4.0) + intra_class(z, v, 4.0)
    rows = OverRows(DIST(2.0, 1.0, 4.0), "all", None)(student, teacher, batch, START)
    torch.testing.assert_close(rows.mean(), expected.mean())
    with pytest.raises(ValueError, match="DIST relates the rows of a batch to each other; set chunk to null"):
        OverRows(DIST(2.0, 1.0, 4.0), "all", 8)


def test_cross_entropy_leaves_out_tokens_without_a_label():
    student, teacher, batch = data(None)
    labels = torch.where(MASK, batch.labels, -1)
    for average in ("example", "all"):
        given = [
            (student, teacher, Batch.of_classes(batch.inputs, labels, batch.index)),
            (Outputs(student.logits, {"mask": MASK}), teacher, batch),
        ]
        by_label, by_mask = (OverRows(CrossEntropy(0.0), average, None)(*each, START) for each in given)
        assert torch.equal(by_label, by_mask)


def test_the_mask_may_be_a_target():
    student, teacher, batch = data()
    expected = OverRows(KD(4.0, "batchmean"), "all", None)(student, teacher, batch, START)
    given = Outputs(student.logits), teacher, batch.with_targets(mask=MASK)
    assert torch.equal(OverRows(KD(4.0, "batchmean"), "all", None)(*given, START), expected)


def test_a_task_without_classes_needs_no_labels():
    student, teacher, batch = data()
    rows = OverRows(BinaryKL(2.0, "mean"), "all", None)(student, teacher, Batch(batch.inputs, {}, batch.index), START)
    assert torch.equal(rows, OverRows(BinaryKL(2.0, "mean"), "all", None)(student, teacher, batch, START))


def test_labels_of_examples_belong_to_all_their_rows():
    student, teacher, batch = data(None)
    labels = torch.tensor([4, 0, 2])
    short = Batch.of_classes(batch.inputs, labels, batch.index)
    long = Batch.of_classes(batch.inputs, labels[:, None].expand(3, TOKENS), batch.index)
    rows = (OverRows(DKD(1.0, 8.0, 2.0), "all", None)(student, teacher, each, START) for each in (short, long))
    assert torch.equal(*rows)


@pytest.mark.parametrize("average", ["example", "all"])
def test_regions_with_owners_equal_the_tokens_that_they_are(average):
    student, teacher, batch = data()
    batch = Batch.of_classes(batch.inputs, torch.tensor([4, 0, 2]), batch.index)
    owner = MASK.nonzero()[:, 0]
    order = torch.tensor([3, 0, 5, 1, 4, 2])  # in any order
    regions = Outputs(student.logits[MASK][order], owner=owner[order]), Outputs(teacher.logits[MASK][order])
    expected = OverRows(DKD(1.0, 8.0, 2.0), average, None)(student, teacher, batch, START)
    torch.testing.assert_close(OverRows(DKD(1.0, 8.0, 2.0), average, None)(*regions, batch, START), expected)
    moved = Outputs(regions[0].logits, owner=owner[order]).float().detach()
    assert moved.owner is not None and torch.equal(moved.owner, owner[order])


@pytest.mark.parametrize("chunk", [None, 2])
def test_where_nothing_counts_the_value_is_zero_with_a_gradient_of_zero(chunk):
    student, teacher, batch = data(torch.zeros(3, TOKENS).bool())
    leaf = student.logits.requires_grad_()
    rows = OverRows(KD(4.0, "batchmean"), "example", chunk)(student, teacher, batch, START)
    rows.mean().backward()
    assert rows.tolist() == [0, 0, 0] and leaf.grad is not None and not leaf.grad.any()


def test_masked_values_need_not_be_finite():
    student, teacher, batch = data()
    z = student.logits.masked_fill(~MASK[..., None], torch.nan).requires_grad_()
    rows = OverRows(KD(4.0, "batchmean"), "all", None)(Outputs(z, {"mask": MASK}), teacher, batch, START)
    rows.mean().backward()
    assert rows.isfinite().all() and z.grad is not None and z.grad.isfinite().all()


def test_is_built_for_vectors_of_the_classes():
    tokens = Shapes((TOKENS, CLASSES), {})
    OverRows(KD(4.0, "batchmean"), "all", None).build(tokens, tokens, SPEC)
    with pytest.raises(ValueError, match="there is no teacher"):
        OverRows(KD(4.0, "batchmean"), "all", None).build(tokens, None, SPEC)
    with pytest.raises(ValueError, match=r"or \[B, V, H, W\]; the student's are \[B, 5, 7, 7, 7\]"):
        OverRows(KD(4.0, "batchmean"), "all", None).build(Shapes((5, 7, 7, 7), {}), tokens, SPEC)
    with pytest.raises(ValueError, match="compares logits class by class"):
        OverRows(KD(4.0, "batchmean"), "all", None).build(tokens, Shapes((TOKENS, 9), {}), SPEC)


def test_refuses_what_is_no_term_on_rows():
    with pytest.raises(ValueError, match="but FitNet reads features"):
        OverRows(FitNet("pooled", "pooled"), "all", None)
    with pytest.raises(ValueError, match="PastPredictions keeps a state per training example"):
        OverRows(PastPredictions(0.5), "all", None)
    with pytest.raises(ValueError, match="'example' or 'all', got 'some'"):
        OverRows(KD(4.0, "batchmean"), "some", None)  # pyright: ignore[reportArgumentType]
    term, (student, teacher, batch) = OverRows(KD(4.0, "batchmean"), "all", None), data()
    with pytest.raises(ValueError, match="have no owner"):
        term(Outputs(student.logits[0]), Outputs(teacher.logits[0]), batch, START)
    with pytest.raises(ValueError, match="row by row"):
        term(student, Outputs(teacher.logits[:, :2]), batch, START)
    with pytest.raises(ValueError, match="2 labels cannot belong to 6 rows"):
        regions = Outputs(student.logits[MASK], owner=MASK.nonzero()[:, 0])
        term(
            regions,
            Outputs(teacher.logits[MASK]),
            Batch.of_classes(batch.inputs[:1], batch.labels[:1, :2], batch.index),
            START,
        )


class Tokens(nn.Module):
    """Logits [B, L, V] of images, one token a row of pixels."""

    def __init__(self, seed: int):
        super().__init__()
        torch.manual_seed(seed)
        self.head = nn.Linear(24, CLASSES)

    def forward(self, images: Tensor) -> Outputs:
        return Outputs(self.head(images.permute(0, 2, 1, 3).flatten(2)))


def test_the_method_of_its_docstring_composes_and_is_kd_of_the_tokens(tmp_path, monkeypatch):
    found = re.search(r"```yaml\n(.*?)```", OverRows.__doc__ or "", re.S)
    assert found is not None
    (tmp_path / "method").mkdir()
    (tmp_path / "method" / "token_kd.yaml").write_text(textwrap.dedent(found[1]))
    monkeypatch.setenv(OWN, "")
    add_config_dir(str(tmp_path))
    node = compose(["method=token_kd"]).config["method"]
    assert [line for name, term in node["terms"].items() for line in check(term, name)] == []
    student, teacher = Tokens(0), Tokens(1)
    method = make(node, student=student, teacher=Frozen(teacher, None, None), spec=SPEC)
    draw = torch.Generator().manual_seed(0)
    images, labels = torch.randn(3, 3, 8, 8, generator=draw), torch.randint(CLASSES, (3, 8), generator=draw)
    step = method(Batch.of_classes(images, labels, torch.arange(3)), START)
    z, v = (net(images).logits.flatten(0, 1).double() for net in (student, teacher))
    p, log_q = (v / 2).softmax(1), (z / 2).log_softmax(1)
    expected = {"ce": -z.log_softmax(1)[torch.arange(24), labels.flatten()], "kd": 4 * (p * (p.log() - log_q)).sum(1)}
    for name, rows in expected.items():
        torch.testing.assert_close(step.terms[name].mean().double(), rows.mean(), rtol=1e-5, atol=1e-6)


def test_an_embedding_learns_through_it():
    student, teacher, batch = data()
    net = nn.Linear(CLASSES, CLASSES).double()
    OverRows(KD(1.0, "batchmean"), "all", 2)(
        Outputs(net(student.logits), dict(student.features)), teacher, batch, START
    ).mean().backward()
    mean = net(student.logits[MASK])
    (expected,) = torch.autograd.grad(
        KD(1.0, "batchmean")(
            Outputs(mean),
            Outputs(teacher.logits[MASK]),
            Batch.of_classes(mean, batch.labels[MASK], batch.labels[MASK]),
            START,
        ).mean(),
        net.weight,
    )
    torch.testing.assert_close(net.weight.grad, expected)


def test_pixels_are_the_tokens_of_a_map():
    mine, theirs, batch = data(None)
    maps = (Outputs(o.logits.movedim(-1, 1).unflatten(2, (2, 2))) for o in (mine, theirs))
    labels = batch.with_targets(labels=batch.labels.view(3, 2, 2))
    for term in (OverRows(KD(4.0, "batchmean"), "example", None), OverRows(CrossEntropy(0.1), "all", 5)):
        term.build(Shapes((CLASSES, 2, 2), {}), Shapes((CLASSES, 2, 2), {}), SPEC)
        ours, others = maps if term.needs_teacher else (Outputs(mine.logits.movedim(-1, 1).unflatten(2, (2, 2))), None)
        expected = term(mine, theirs if term.needs_teacher else None, batch, START)
        torch.testing.assert_close(term(ours, others, labels, START), expected, rtol=1e-12, atol=1e-12)
