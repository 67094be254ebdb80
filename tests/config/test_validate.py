"""The signature is the schema: keys, types, ranges, choices, targets."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import pytest
from annotated_types import Ge, MultipleOf

from kdx.config.compose import ConfigError, compose
from kdx.config.validate import check, locate, signature, validate
from kdx.core.ranges import Fraction, Positive, PositiveInt
from kdx.core.schedule import Schedule
from kdx.losses.base.term import Term


@dataclass(frozen=True, kw_only=True)
class Inner:
    size: PositiveInt


class Everything:
    def __init__(
        self,
        whole: int,
        share: Fraction,
        rate: Positive | Schedule,
        choice: Literal["a", "b"],
        maybe: PositiveInt | None,
        flag: bool,
        name: str,
        many: Sequence[int],
        pairs: Sequence[str] | Mapping[str, str],
        terms: Mapping[str, Term],
        inner: Inner,
        local: Annotated[int, Ge(2)],
        usual: int = 3,
    ):
        pass


ME = f"{__name__}.Everything"
GOOD = {
    "_target_": ME,
    "whole": -1,
    "share": 0.5,
    "rate": 1,
    "choice": "a",
    "maybe": None,
    "flag": True,
    "name": "x",
    "many": [1, 2],
    "pairs": ["p"],
    "terms": {"kd": {"_target_": "kdx.losses.logits.kd.KD", "temperature": 4, "reduction": "mean"}},
    "inner": {"_target_": f"{__name__}.Inner", "size": 1},
    "local": 2,
}
LINEAR = {"_target_": "kdx.core.schedule.Linear", "start": 1, "end": 2, "until": 3}


def wrong(**changes: object) -> list[str]:
    return check({**GOOD, **changes}, "node")


def test_a_node_that_binds_has_no_problem():
    assert wrong() == []
    assert wrong(usual=4, rate=LINEAR, maybe=3, pairs={"a": "b"}, share=1) == []


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        ("whole", 1.5, "must be a whole number, found 1.5"),
        ("whole", "1", "must be a whole number, found '1'"),
        ("whole", True, "must be a whole number, found true"),
        ("whole", None, "must be a whole number, found null"),
        ("share", 0, "must be greater than 0, found 0"),
        ("share", 1.01, "must be at most 1, found 1.01"),
        ("share", "0.5", "must be a number, found '0.5'"),
        ("rate", -1, "must be greater than 0, found -1"),
        ("rate", math.inf, "must be a finite number, found inf"),
        ("rate", "fast", "must be a number, found 'fast'"),
        ("choice", "c", "must be 'a' or 'b', found 'c'"),
        ("maybe", 0, "must be greater than 0 or null, found 0"),
        ("flag", 1, "must be true or false, found 1"),
        ("flag", "true", "must be true or false, found 'true'"),
        ("name", 5, "must be text, found 5"),
        ("many", 5, "must be a list, found 5"),
        ("terms", 5, "must be keys with values, found 5"),
        ("local", 1, "must be at least 2, found 1"),
    ],
)
def test_a_wrong_value_is_reported_in_the_words_of_a_yaml_file(key, value, line):
    assert wrong(**{key: value}) == [f"node.{key}: {line}"]


class Blocks:
    def __init__(self, width: Annotated[int, MultipleOf(8)]):
        pass


def test_a_rule_without_words_of_its_own_keeps_those_of_the_checker():
    assert check({"_target_": f"{__name__}.Blocks", "width": 12}, "node") == [
        "node.width: must be a multiple of 8, found 12"
    ]


def test_nan_lies_in_no_range():
    assert len(wrong(share=float("nan"))) == len(wrong(rate=float("nan"))) == 1


def test_an_element_of_a_list_is_named_by_its_place():
    assert wrong(many=[1, "x"]) == ["node.many[1]: must be a whole number, found 'x'"]


def test_keys_are_checked_at_every_depth():
    inner = {"_target_": f"{__name__}.Inner", "size": 0, "sise": 1}
    assert wrong(inner=inner) == [
        "node.inner.size: must be greater than 0, found 0",
        "unknown key 'node.inner.sise'; did you mean 'size'?",
    ]
    assert wrong(rate={**LINEAR, "untill": 3}) == ["unknown key 'node.rate.untill'; did you mean 'until'?"]
    del (term := dict(GOOD["terms"]["kd"]))["reduction"]
    assert wrong(terms={"kd": term}) == ["missing key 'node.terms.kd.reduction'"]


def test_what_is_missing_and_what_has_a_default():
    assert check({"_target_": f"{__name__}.Inner"}, "x") == ["missing key 'x.size'"]
    _, required = signature(Everything)
    assert required == GOOD.keys() - {"_target_"}


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ("kdx.losses.logits.kd.KDD", "the module 'kdx.losses.logits.kd' has no 'KDD'; did you mean 'KD'?"),
        ("kdx.nope.KD", "there is no module 'kdx.nope'"),
        ("nope", "must be the full name of a class or function, such as kdx.losses.logits.kd.KD; found 'nope'"),
        ("", "must be the full name of a class or function, such as kdx.losses.logits.kd.KD; found ''"),
        (".KD", "must be the full name of a class or function, such as kdx.losses.logits.kd.KD; found '.KD'"),
        (
            "kdx.losses.",
            "must be the full name of a class or function, such as kdx.losses.logits.kd.KD; found 'kdx.losses.'",
        ),
        ("kdx.losses.logits.kd.__name__", "the module 'kdx.losses.logits.kd' has no '__name__'"),
    ],
)
def test_a_target_that_is_not_there(target, sentence):
    with pytest.raises(ValueError) as error:
        locate(target)
    assert str(error.value).startswith(sentence)
    assert check({"_target_": target}, "x")[0].startswith(f"x._target_: {sentence}")


def test_a_mistake_is_reported_once_where_it_was_made():
    composed = compose(["method.temperature=-1", "seed=-2"])  # others read both by interpolation
    config = {**composed.config, "choices": composed.choices}
    for key in ("experiment", "debug", "recipe"):
        config.pop(key, None)
    with pytest.raises(ConfigError) as error:
        validate(config, composed.interpolated)
    assert sorted(p.split(":")[0] for p in error.value.problems) == ["method.temperature", "seed"]


def test_a_fact_that_does_not_suit_its_reader_is_still_told():
    composed = compose(["dataset.input_shape=[1,8.5,8]"])
    config = {**composed.config, "choices": composed.choices}
    with pytest.raises(ConfigError, match=r"dataset.input_shape\[1\]: must be a whole number, found 8.5"):
        validate(config, composed.interpolated)
