"""Generalists and specialists from the command to the result: where a specialist starts, what they teach together."""

import json
from pathlib import Path

import pytest
import torch
from conftest import CLASSES, STUDENT, TINY
from safetensors.torch import load_file

from kdx.config.compose import ConfigError, compose
from kdx.models.teachers.specialists import specialise
from kdx.models.weights import load_weights
from kdx.report.collect import Run
from kdx.report.recompute import recompute
from kdx.runs.build import build_light, build_loaders, build_network, start_student
from kdx.runs.prepare import prepare
from kdx.runs.results import PREDICTIONS
from kdx.runs.run import run

Q = (
    "teacher.combine=specialists",
    "teacher.members={all: {}, some: {special_classes: [4,1]}}",
    "method=kd",
)


def test_a_specialist_starts_from_the_generalist_and_leaves_its_own_classes_and_the_rest(tiny):
    generalist = run(tiny("method=supervised"))
    config = tiny("method=supervised", "transfer=specialist", "transfer.special_classes=[4,1]")
    begun = start_student(config, generalist.student)
    plain = build_network(config.student.net, 5)
    load_weights(plain, generalist.student)
    specialise(plain, [4, 1])
    assert all(torch.equal(a, b) for a, b in zip(begun.parameters(), plain.parameters(), strict=True))
    started = tiny(
        "method=supervised",
        "transfer=specialist",
        "transfer.special_classes=[4,1]",
        f"student.checkpoint={generalist.folder}",
    )
    result = run(started)
    assert load_file(result.student)["fc.weight"].shape[0] == 3
    assert load_file(result.folder / PREDICTIONS)["label"].unique().tolist() == [0, 1, 2]


def test_specialists_teach_what_they_agree_on(tiny):
    config = tiny(*Q)
    result = run(config)
    facts = result.data["teacher"]["members"]
    x = torch.cat([b.inputs for b in build_loaders(config, build_light(config)).evals["test"]])
    p = {}
    for name, classes in (("all", None), ("some", [4, 1])):
        folder = Path(config.paths.teachers) / facts[name]["trained_by"]
        # a member is measured as its own run was: on its classes and the rest
        told = json.loads((folder / "result.json").read_text())["metrics"]["last"]["test/top1"]
        assert facts[name]["test/top1"] == pytest.approx(told)
        net = build_network(config.teacher.members[name].net, 0)
        if classes is not None:
            specialise(net, classes)
        load_weights(net, folder / "student.safetensors")
        with torch.no_grad():
            p[name] = net.eval()(x).logits.double()
    # odds of its classes were one to one in training and are two to three
    p["some"][:, 2] -= torch.tensor(2 / 3).double().log()
    g, some = (v.softmax(1) for v in p.values())
    rest = [0, 2, 3]
    whole = torch.zeros_like(g)
    whole[:, [4, 1]] = some[:, :2]
    whole[:, rest] = some[:, 2:] * g[:, rest] / g[:, rest].sum(1, keepdim=True)
    say = torch.isin(g.argmax(1), torch.tensor([1, 4]))
    q = torch.where(say[:, None], (g + whole) / 2, g)
    assert say.any() and not say.all()
    saved = load_file(result.folder / PREDICTIONS)
    assert torch.equal(saved["teacher/prediction"], q.argmax(1).int())
    torch.testing.assert_close(saved["teacher/confidence"], q.amax(1).float(), rtol=0, atol=1e-4)
    (result.folder / PREDICTIONS).unlink()
    assert recompute(Run(result, config.plain())) is None
    again = load_file(result.folder / PREDICTIONS)
    assert all(torch.equal(again[name], saved[name]) for name in saved)


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (("teacher.combine=specialists",), "needs a generalist and specialists"),
        (("teacher.special_classes=[1]",), "with teacher.combine=specialists"),
        ((*Q, "teacher.members.some.special_classes=null"), "found 2 generalists and 0 specialists"),
        (("transfer=specialist", "transfer.special_classes=[1]"), "has 5 outputs and the student 2"),
    ],
)
def test_mistakes_are_reported_before_anything_trains(overrides: tuple[str, ...], sentence: str):
    with pytest.raises(ConfigError) as caught:
        prepare(compose([*CLASSES, *TINY, *STUDENT, *overrides]))
    assert sentence in "\n".join(caught.value.problems)
