"""Cells of the paper tables, against the settings of the code that printed the numbers."""

import re
from collections.abc import Sequence
from functools import cache, reduce
from typing import Any

import pytest
import yaml

from kdx.config.layout import config_dir
from kdx.core.outputs import Shapes
from kdx.losses.base.roles import inner_pairs, inner_roles

STUDY = config_dir() / "study"
# GzyAftermath/CAT-KD @ 2657a68, configs/cifar100/CAT_KD/*.yaml: weight, normalised, side
CATKD = {
    "resnet56-resnet20": (0.7, False, 2),
    "resnet110-resnet32": (1.8, False, 2),
    "resnet32x4-resnet8x4": (15.0, False, 2),
    "wrn_40_2-wrn_16_2": (12.0, False, 2),
    "wrn_40_2-wrn_40_1": (1.5, False, 2),
    "vgg13-vgg8": (4.5, False, 2),
    "resnet32x4-shufflenetv1": (600.0, True, 4),
    "wrn_40_2-shufflenetv1": (80.0, True, 4),
    "vgg13-mobilenetv2_half": (15.0, True, 2),
    "resnet50_cifar-mobilenetv2_half": (40.0, True, 2),
    "resnet32x4-shufflenetv2": (600.0, True, 4),
}
# names of the authors' logs in the README of sunshangquan/logit-standardization-KD @ f6e5aa5: base temperature, weight
MLKD_LS = {
    "resnet32x4-resnet8x4": (2, 9),
    "vgg13-vgg8": (2, 6),
    "wrn_40_2-wrn_40_1": (2, 9),
    "wrn_40_2-wrn_16_2": (2, 9),
    "resnet110-resnet32": (2, 9),
    "resnet110-resnet20": (2, 9),
    "resnet32x4-shufflenetv2": (2, 6),
    "resnet32x4-wrn_16_2": (2, 9),
    "resnet32x4-wrn_40_2": (2, 9),
    "wrn_40_2-resnet8x4": (2, 9),
    "vgg13-mobilenetv2_half": (2, 6),
    "resnet50_cifar-mobilenetv2_half": (2, 9),
}
# HobbitLong/RepDistiller @ b84f547, feats[1:-1] of its networks: stages between the first map and the pooled vector
INNER = {"resnet": 3, "wrn": 3, "shufflenet": 3, "vgg": 4, "mobilenet": 4, "resnet50": 4}
WITH_MAPS = ["crd/same_arch", "crd/cross_arch", "simkd/cifar100"]
TABLES = [
    *WITH_MAPS,
    "dkd/cifar100",
    "dkd/imagenet",
    "lskd/cifar100",
    "dist/cifar100",
    "dist/imagenet",
    "catkd/cifar100",
]

PRINTED = [
    str(path.relative_to(STUDY).with_suffix(""))
    for path in sorted(STUDY.rglob("*.yaml"))
    if "paper_table.PaperTable" in path.read_text()
]
# weights of KL (labels, teacher) and of CRD for each pair, printed in the appendix of Ojha et al.
OJHA = {
    "resnet50-resnet18": (0.5, 0.5, 0.8),
    "vgg19-vgg11": (1, 0.2, 0.8),
    "vgg19-resnet18": (0.9, 0.1, 1.2),
    "vit_b_32-resnet18": (1, 0.2, 0.2),
    "swin_b-swin_t": (0.1, 0.9, 0.8),
}


@cache
def table(name: str) -> dict[str, Any]:
    return yaml.safe_load((STUDY / f"{name}.yaml").read_text())


def chosen(name: str, row: str, column: str) -> dict[str, str]:
    """Overrides of a cell by key; the last of a key wins. Composing hundreds of cells would take minutes."""
    study = table(name)
    own = study["cells"].get(row, {}).get(column, [])
    return dict(o.split("=", 1) for o in [*study["overrides"], *study["columns"][column], *study["rows"][row], *own])


def method(name: str, row: str, column: str) -> dict[str, Any]:
    """The method of a cell: its file with the cell's overrides."""
    overrides = chosen(name, row, column)
    found = yaml.safe_load((config_dir() / "method" / f"{overrides['method']}.yaml").read_text())
    for key, value in overrides.items():
        *path, last = key.split(".")
        if path and path[0] == "method":
            node = reduce(lambda at, part: at[part], path[1:], found)
            assert last in node, f"{key} is no key of method={overrides['method']}"
            node[last] = yaml.safe_load(value)
    return found


def inner(network: str) -> int:
    return next(INNER[family] for family in sorted(INNER, key=len, reverse=True) if network.startswith(family))


@pytest.mark.parametrize("pair", CATKD)
def test_cat_kd_has_the_weight_of_each_pair(pair: str):
    found = method("catkd/cifar100", "CAT-KD", pair)
    term = found["terms"]["catkd"]
    assert (found["weights"]["catkd"], term["normalize"], term["side"]) == CATKD[pair]
    assert term["bias"] is False and found["weights"]["ce"] == 1


@pytest.mark.parametrize("pair", MLKD_LS)
def test_mlkd_ls_has_the_temperature_and_weight_of_its_log(pair: str):
    found = method("lskd/cifar100", "MLKD+LS", pair)
    terms, weights = {**found["terms"], **found["strong_terms"]}, found["weights"]
    temperature, weight = MLKD_LS[pair]
    distilled = {"kd", "kd_again", "samples", "classes", "strong_kd"}
    assert {name for name in terms if "ce" not in name} == distilled
    assert all(weights[name] == weight for name in distilled)
    assert weights["ce"] == weights["strong_ce"] == 0.1
    inner_of = {name: term.get("term", term) for name, term in terms.items()}
    assert inner_of["kd"]["term"]["temperatures"] == [temperature, 3, 5, 2, 6]
    assert inner_of["samples"]["temperatures"] == inner_of["classes"]["temperatures"] == [temperature, 3, 5, 2, 6]
    assert inner_of["strong_kd"]["temperatures"] == [temperature, 3, 5]
    assert inner_of["kd_again"]["temperatures"] == [2, 6]


def test_mlkd_and_mlkd_ls_run_the_loss_as_shipped():
    for row in ("MLKD", "MLKD+LS"):
        found = method("lskd/cifar100", row, "resnet32x4-resnet8x4")
        assert {term["keep"] for term in found["terms"].values() if "keep" in term} == {"share"}
        assert "strong_samples" not in found["strong_terms"] and "strong_classes" not in found["strong_terms"]
        standardised = [name for name, term in found["terms"].items() if "Standardization" in str(term)]
        assert standardised == (["kd", "kd_again"] if row == "MLKD+LS" else [])


def shapes(network: str) -> Shapes:
    """The stages of a network as RepDistiller has them."""
    maps = {f"stage{i}": (8, 4, 4) for i in range(inner(network) + 1)}
    return Shapes((100,), {**maps, **{f"{role}.preact": shape for role, shape in maps.items()}, "pooled": (8,)})


def student_maps(roles: Sequence[str] | None, teacher: str, student: str, **how: Any) -> list[str]:
    """The student's maps that a term reads: those of the cell, or all that both networks have."""
    if roles is not None:
        return list(roles)
    return [mine for mine, _ in inner_pairs(shapes(student), shapes(teacher), **how)]


@pytest.mark.parametrize("name", ["crd/same_arch", "crd/cross_arch"])
def test_inner_maps_are_all_that_the_networks_have(name: str):
    for column in table(name)["columns"]:
        pair = teacher, student = column.split("-")[0], column.split("-")[1]
        stages = [f"stage{i}" for i in range(1, min(inner(teacher), inner(student)) + 1)]
        for row, term in (("AT", "at"), ("NST", "nst"), ("VID", "vid")):
            assert student_maps(method(name, row, column)["terms"][term]["roles"], *pair) == stages
        before = method(name, "AB", column)["terms"]["ab"]["term"]["roles"]
        assert student_maps(before, *pair, preact="both") == [f"{s}.preact" for s in stages]
        if "FSP" in table(name)["rows"]:
            flows = method(name, "FSP", column)["terms"]["fsp"]["term"]["roles"]
            assert student_maps(flows, *pair, stem=True) == ["stage0", *stages]


@pytest.mark.parametrize("name", ["crd/same_arch", "crd/cross_arch"])
def test_cells_of_networks_with_four_stages_name_their_maps(name: str):
    """As the defaults do for two networks of four stages, so that a cell says what it reads."""
    for row in ("AT", "NST", "VID", "AB"):
        named = {column for column, own in table(name)["cells"][row].items() if any("roles=" in o for o in own)}
        assert named == {column for column in table(name)["columns"] if min(map(inner, column.split("-"))) == 4}


@pytest.mark.parametrize("name", ["crd/same_arch", "crd/cross_arch"])
def test_the_first_stage_of_ft_has_the_rate_of_its_student(name: str):
    """RepDistiller's helper/pretrain.py: 0.01 for resnet and wrn students, else the student's rate."""
    steps = yaml.safe_load((config_dir() / "schedule" / "first_stage.yaml").read_text())
    for column in table(name)["columns"]:
        student, overrides = column.split("-")[1], chosen(name, "FT", column)
        rate = float(overrides.get("optimizer.lr", "0.05"))
        assert rate == (0.01 if re.match("mobilenet|shufflenet", student) else 0.05)
        factor = steps["factors"][0] if overrides.get("schedule") == "first_stage" else 1.0
        assert rate * factor == pytest.approx(0.01 if re.match("resnet|wrn", student) else rate)
        weight = method(name, "FT", column)["weights"]["ft"]
        assert (weight["value"], weight["value"] * weight["gamma"], weight["milestones"]) == (1, 200, [30])


@pytest.mark.parametrize("pair", OJHA)
def test_ojhas_kl_and_crd_have_the_printed_weights(pair: str):
    kl, crd = (method("ojha/imagenet", row, pair) for row in ("KL", "CRD"))
    assert (kl["weights"]["ce"], kl["weights"]["kd"], crd["weights"]["crd"]) == OJHA[pair]
    assert (kl["temperature"], crd["terms"]["crd"]["temperature"], crd["weights"]["ce"]) == (4, 0.07, 1)


def test_the_kd_of_bss_has_the_weights_of_the_script_that_printed_it():
    """AberHu/Knowledge-Distillation-Zoo, train_kd.py and example_train_script.sh: labels 1, soft targets 0.1, T 4."""
    for column in table("bss/cifar")["columns"]:
        found, overrides = method("bss/cifar", "KD", column), chosen("bss/cifar", "KD", column)
        assert (found["weights"]["ce"], found["weights"]["kd"], found["temperature"]) == (1, 0.1, 4)
        assert (overrides["schedule.milestones"], overrides["optimizer.nesterov"]) == ("[100,150]", "true")


# the forms of public code that shipped methods follow: method, path in its file, value
SHIPPED = [
    ("catkd", "terms.catkd.normalize", False),
    ("catkd", "terms.catkd.bias", False),
    ("catkd", "weights.catkd", 15),  # the pair resnet32x4 to resnet8x4
    ("vid", "terms.vid.bias", False),
    ("ickd", "terms.ickd.initial", "torch"),
    ("ickd_kd", "terms.ickd.initial", "torch"),
    ("camkd", "terms.kd.across", "count"),
    ("ebkd", "terms.kd.across", "count"),
]
# settings for CIFAR-100 of yzd-v/cls_KD, which the files name beside those for ImageNet
CIFAR100 = {
    "mgd": {"weights.mgd": 0.0012},
    "nkd": {"temperature": 3, "terms.nkd.nontarget_weight": 3.5},
    "srrl": {"terms.srrl.logit_weight": 5},
}


@pytest.mark.parametrize(("name", "path", "value"), SHIPPED)
def test_shipped_methods_have_the_form_of_public_code(name: str, path: str, value: Any):
    text = (config_dir() / "method" / f"{name}.yaml").read_text()
    assert reduce(lambda at, part: at[part], path.split("."), yaml.safe_load(text)) == value


@pytest.mark.parametrize("name", CIFAR100)
def test_settings_for_cifar100_are_named_and_have_keys(name: str):
    text = (config_dir() / "method" / f"{name}.yaml").read_text()
    named = dict(re.findall(r"method\.([a-z_.]+)=([0-9.]+)", text.split("_target_:")[0]))
    assert {key: float(value) for key, value in named.items()} == CIFAR100[name]
    for path in named:
        reduce(lambda at, part: at[part], path.split("."), yaml.safe_load(text))


def test_simkd_projects_the_map_before_the_last_convolution_of_shufflenet():
    name = "simkd/cifar100"
    for row in ("SimKD (f=8)", "SimKD (f=4)", "SimKD (f=2)"):
        roles = [method(name, row, column)["student_role"] for column in table(name)["columns"]]
        assert roles == ["final", "final", "stage3"]
        assert method(name, row, "resnet32x4-vgg8")["reduction"] == int(row[-2])


def test_semckd_reads_four_maps_of_vgg8():
    for column in table("simkd/cifar100")["columns"]:
        teacher, student = column.split("-")
        term = method("simkd/cifar100", "SemCKD", column)["terms"]["semckd"]
        assert len(term["student_roles"] or inner_roles(shapes(student), "student")) == inner(student)
        assert len(term["teacher_roles"] or inner_roles(shapes(teacher), "teacher")) == inner(teacher) == 3


def followed(name: str) -> dict[str, str]:
    """The form that each row follows, by the comments above a study."""
    text = (STUDY / f"{name}.yaml").read_text()
    said: dict[str, str] = {}
    for form, rows in re.findall(r"^# rows from ([^:]+): (.+)$", text[: text.index("_target_:")], re.M):
        for row in yaml.safe_load(f"[{rows}]"):
            assert row not in said, f"{row} is said twice"
            said[row] = form
    return said


@pytest.mark.parametrize("name", PRINTED)
def test_the_front_matter_says_what_each_row_follows(name: str):
    rows, said = table(name)["rows"], followed(name)
    assert set(said) == set(rows) - {"teacher", "student alone"}
    assert all(re.search("code|paper|README|script", form) for form in said.values())


@pytest.mark.parametrize("name", PRINTED)
def test_the_front_matter_says_which_rows_are_not_built(name: str):
    cells = table(name)["rows"], table(name)["columns"]
    for row, form in followed(name).items():
        assert ("not built" in form) == (cells[0][row] is None or all(own is None for own in cells[1].values()))


@pytest.mark.parametrize("name", [*TABLES, "ojha/imagenet"])
def test_the_notes_say_which_maps_are_read(name: str):
    assert any(re.search("maps? |feature maps", note) for note in table(name)["notes"])
