"""Roles: how a config gives them, their order, and defaults that follow the networks."""

import pytest
import torch
from torch import nn

from kdx.core import notice
from kdx.core.outputs import FeatureSpec, Shapes
from kdx.losses.base.heads import classifier_of, local_classifier
from kdx.losses.base.roles import inner_pairs, inner_roles, pair_roles, resolve
from kdx.losses.features.ab import AB
from kdx.losses.features.at import AT
from kdx.losses.features.fitnet import map_adapter
from kdx.losses.features.fsp import FSP
from kdx.losses.features.reviewkd import ReviewKD
from kdx.losses.features.semckd import SemCKD
from kdx.tasks.classes import image_classes

SPEC = image_classes(5, (3, 8, 8), 20, (0.0,) * 3, (1.0,) * 3, labels=torch.arange(20) % 5)


def shapes(stages: int, stem: bool = True, preact: bool = True) -> Shapes:
    maps = {f"stage{i}": (4, 8, 8) for i in range(0 if stem else 1, stages + 1)}
    before = {f"{role}.preact": shape for role, shape in maps.items() if role != "stage0"} if preact else {}
    return Shapes((5,), {**maps, **before, "pooled": (4,)})


def test_a_list_a_mapping_and_lists_per_side_say_the_same():
    same = (("stage1", "stage1"), ("stage3", "stage3"))
    assert pair_roles(["stage1", "stage3"], "AT") == same
    assert pair_roles({"stage1": "stage1", "stage3": "stage3"}, "AT") == same
    assert pair_roles({"student": ["stage1", "stage3"], "teacher": ["stage1", "stage3"]}, "AT") == same


@pytest.mark.parametrize(
    ("roles", "sentence"),
    [
        (["stage2", "stage1"], "AT reads the student's roles from shallow to deep; got stage2, stage1"),
        ({"stage1": "stage10", "stage2": "stage9"}, "the teacher's roles from shallow to deep"),
        (["stage2.preact", "stage1.preact"], "from shallow to deep"),
        ({"student": ["stage1"], "teacher": ["stage1", "stage2"]}, "1 of the student, 2 of the teacher"),
        ([], "expects a list of roles"),
        ("stage1", "expects a list of roles"),
    ],
)
def test_roles_that_cannot_be_meant_are_refused(roles, sentence):
    with pytest.raises(ValueError, match=sentence):
        pair_roles(roles, "AT")


def test_a_missing_role_names_those_that_there_are():
    with pytest.raises(ValueError, match="the teacher has no feature with role 'stage7'; it has: stage0, stage1"):
        AT(["stage7"], 2.0).build(shapes(7), shapes(3), SPEC)


def test_every_stage_is_read_by_default():
    for stages in (2, 3, 4, 5):
        for term, first, suffix in ((AT(None, 2.0), 1, ""), (AB(None, 1.0), 1, ".preact"), (FSP(None), 0, "")):
            term.build(shapes(stages), shapes(stages), SPEC)
            expected = ["stage0"] * (first == 0) + [f"stage{i}{suffix}" for i in range(1, stages + 1)]
            assert list(term.student_roles()) == list(term.teacher_roles()) == expected
    review = ReviewKD(None, 8)
    review.build(shapes(4), shapes(4), SPEC)
    assert review.student_roles() == ("stage1", "stage2", "stage3", "stage4", "pooled")
    assert review.teacher_roles() == (*(f"stage{i}.preact" for i in (1, 2, 3, 4)), "pooled")


def test_networks_of_unequal_depth_are_compared_as_far_as_both_go(capsys, monkeypatch):
    monkeypatch.setattr(notice, "_said", set())  # each notice is printed once in a process
    assert [theirs for _, theirs in inner_pairs(shapes(3), shapes(4))] == ["stage1", "stage2", "stage3"]
    assert "the student has 3 stages and the teacher 4" in capsys.readouterr().err
    assert inner_roles(shapes(11), "student")[-1] == "stage11"
    semckd = SemCKD(None, None, 8, 4, 1.0)
    semckd.build(shapes(3), shapes(4), SPEC)
    assert len(semckd.student_roles()) == 3 and len(semckd.teacher_roles()) == 4


def test_the_stem_is_compared_where_both_have_one():
    assert inner_pairs(shapes(2), shapes(2, stem=False), stem=True)[0] == ("stage1", "stage1")


@pytest.mark.parametrize(
    ("role", "instead"),
    [("stage2.preact", "stage2"), ("final", "stage3"), ("pre_logits", "pooled"), ("last", "stage3")],
)
def test_a_feature_serves_for_a_missing_one_and_it_is_reported(role: str, instead: str, capsys):
    assert resolve(role, shapes(3, preact=False), f"network for {role}") == instead
    assert (f"no feature '{role}'; its '{instead}' is read" in capsys.readouterr().err) == (role != "last")


def test_a_map_that_enters_the_pooling_goes_before_the_deepest_stage():
    with_last = Shapes((5,), {"stage1": (4, 8, 8), "stage2": (8, 4, 4), "last": (16, 4, 4)})
    assert resolve("final", with_last, "student") == "last"
    assert with_last.feature("last") == (16, 4, 4)


def test_undecided_axes_are_refused_with_the_setting_that_decides():
    spec = FeatureSpec("undecided", 0, None, 0, "taps={stage1: 'body:bhwc'}")
    unknown = Shapes((5,), {"stage1": (4, 4, 4)}, {"stage1": spec})
    with pytest.raises(ValueError, match=r"'stage1' \[B, 4, 4, 4\] are ambiguous; taps={stage1: 'body:bhwc'}"):
        AT(["stage1"], 2.0).build(unknown, unknown, SPEC)


def test_a_classifier_of_several_modules_is_taken_or_refused_by_need():
    class Network(nn.Module):
        def classifier_for(self, role: str, channels: int) -> nn.Module | None:
            return nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 5)) if role == "pooled" else None

    assert isinstance(classifier_of(Network(), "pooled", 4, "teacher", "SRRL"), nn.Sequential)
    with pytest.raises(ValueError, match="here other layers take part"):
        local_classifier(Network(), "pooled", 4, "teacher", "CAT-KD")
    with pytest.raises(ValueError, match="SRRL needs the part of the teacher that turns 'last' into logits"):
        classifier_of(Network(), "last", 4, "teacher", "SRRL")


@pytest.mark.parametrize("mine", [(2, 2), (3, 5), (7, 7), (8, 3), (14, 14), (20, 9)])
def test_an_adapter_reaches_every_size(mine: tuple[int, int]):
    adapter = map_adapter((4, *mine), (6, 7, 7)).eval()
    x = torch.randn(2, 4, *mine, generator=torch.Generator().manual_seed(0))
    assert adapter(x).shape == (2, 6, 7, 7)
