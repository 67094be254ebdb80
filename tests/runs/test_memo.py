"""Runs whose teacher remembers, against the same runs whose teacher does not."""

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import OTHER_TASKS
from traces import outcome

from kdx.config.compose import ConfigError, options
from kdx.core.errors import UserError
from kdx.core.schedule import Progress
from kdx.core.seed import seeded
from kdx.data.content import digests
from kdx.models.teachers.frozen import Frozen
from kdx.models.teachers.memo import MIN_BATCH, Memo
from kdx.pool.run_fused import run_together
from kdx.runs.build import build_light, build_loaders, build_method, build_network, make, start_student
from kdx.runs.memo import agrees, memoised
from kdx.runs.run import run

# 3 steps an epoch, the last of 8 examples: too few for the table. Some processors give a row of a narrower linear layer
# other bits at another place
BASE = (
    "trainer.batch_size=16",
    "augmentation=shift",
    "trainer.duration.steps=30",
    "teacher.recipe=[]",
    "teacher.net.widths=[8,8,16,16]",
)
MEMO = ("teacher.memo=true", "teacher.memo_dtype=fp32")
WEIGHTS = f"teacher.checkpoint='{__file__}'"
DEAF = ("alone",)  # has a teacher to be measured against, and does not ask it
# what methods need beside the pair that all of them get
NEEDS = dict.fromkeys(
    ("mlkd", "mlkd_ls", "mlkd_ls_shipped", "mlkd_shipped"), "augmentation=two_shifts"
) | dict.fromkeys(("fsp", "kdsvd"), "teacher.net.widths=[4,4,8,8]")
POOLED = "teacher.memo_features=[pooled]"


def told(folder: Path) -> dict[str, Any]:
    """The outcome of a run without its name, its identity and the facts of its memo."""
    found = outcome(folder)
    for key in ("name", "identity"):
        del found[key]
    found["weights"] = {name: data[data.rindex(b"}") :] for name, data in found["weights"].items()}
    found["teacher"] = {k: v for k, v in found["teacher"].items() if k not in ("memo", "speed")}
    return found


@pytest.mark.parametrize(
    "method",
    [
        ("method=kd",),
        ("method=dkd", "augmentation=strong", "augmentation.cycle=3"),
        ("method=rkd", POOLED),
        ("method=kd", "dataset.fraction=0.8", "dataset.val_fraction=0.2"),
        ("method=kd", "trainer.precision=bf16", "teacher.optimize=folded", "teacher.max_kl=1"),
    ],
)
def test_in_float32_a_run_is_the_same_to_the_bit_and_so_is_the_next(tiny, method):
    plain = run(tiny(*BASE, *method))
    config = tiny(*BASE, *MEMO, *method)
    first = run(config)
    assert first.folder != plain.folder
    shares = [first.data["teacher"]["memo"]["share_computed"]]
    assert told(first.folder) == told(plain.folder)
    assert first.data["teacher"]["memo"]["bits_as_without"]
    again = run(replace(config, fresh=True))  # from what the first one left
    shares.append(again.data["teacher"]["memo"]["share_computed"])
    assert told(again.folder) == told(plain.folder)
    assert 0 < shares[1] < shares[0] < 1


def test_in_float16_it_is_close(tiny):
    lines = [run(tiny(*BASE, *memo)).folder for memo in ((), ("teacher.memo=true",))]
    plain, memo = (next(json.loads(line)["train/loss"] for line in (f / "metrics.jsonl").open()) for f in lines)
    assert plain != memo and abs(plain - memo) < 1e-3 * plain


def scene(tiny, *overrides: str):
    config = tiny(WEIGHTS, *BASE, *MEMO, *overrides)
    net = build_network(config.teacher.net, 1)
    with seeded(0, "statistics"), torch.no_grad():
        net.train()(torch.randn(64, *config.dataset["input_shape"]))
    teacher = Frozen(net, None, None)
    loaders = build_loaders(config, build_light(config))
    return config, teacher, loaders, memoised(config, teacher, "sum", loaders, torch.device("cpu"))


def test_each_view_is_asked_once_and_the_answer_is_the_teachers_own(tiny):
    _, teacher, loaders, memo = scene(tiny, POOLED, "trainer.drop_last=true")
    seen: set[int] = set()
    for epoch in range(12):
        for batch in loaders.train.epoch(epoch):
            before, new = memo.misses, set(batch.view.tolist()) - seen
            answer, own = memo.of(batch), teacher(batch.inputs)
            assert torch.equal(answer.logits, own.logits)
            assert torch.equal(answer.feature("pooled"), own.feature("pooled")) and len(answer.features) == 1
            assert memo.misses - before == len(new)
            seen |= new
    assert memo.hits > 0 and memo.table.written() == len(seen)


def test_small_batches_go_by_the_table(tiny):
    _, teacher, loaders, memo = scene(tiny)
    batches = list(loaders.train.epoch(0))
    for batch in (batches[0], batches[-1], *batches[0].chunk(4)):
        assert torch.equal(memo.of(batch).logits, teacher(batch.inputs).logits)
    assert len(batches[-1]) < MIN_BATCH and memo.hits == 0 and memo.table.written() == 16


def test_evaluators_get_the_teacher_itself(tiny):
    _, teacher, loaders, memo = scene(tiny)
    for batch in loaders.evals["test"]:
        assert torch.equal(memo(batch.inputs).logits, teacher(batch.inputs).logits)
        assert memo(batch.inputs).features.keys() == teacher(batch.inputs).features.keys()
        with pytest.raises(ValueError, match="has no view numbers"):
            memo.of(batch)
    assert not memo.table.written()
    memo.train()
    assert not any(m.training for m in memo.modules())


@pytest.mark.parametrize(
    "change",
    ["seed=1", "data_seed=3", "method=dkd", "dataset.fraction=0.5", "dataset.val_fraction=0.2", "student=mlp_30"],
)
def test_runs_that_ask_the_same_share_a_memo(tiny, change):
    student = () if change.startswith("student") else None
    mine = scene(tiny)[3]
    config = tiny(WEIGHTS, *BASE, *MEMO, change, **({} if student is None else {"student": student}))
    loaders = build_loaders(config, build_light(config))
    assert memoised(config, mine.net.teacher, "sum", loaders, torch.device("cpu")).table.folder == mine.table.folder


@pytest.mark.parametrize("decodes", [False, True])
def test_other_images_under_the_same_config_have_another_memo(tiny, capsys, decodes: bool):
    config, teacher, loaders, memo = scene(tiny)

    def folder(images: torch.Tensor) -> Path:
        train = copy.copy(loaders.splits.train)
        train.images, train.decodes = images, decodes
        other = replace(loaders, splits=replace(loaders.splits, train=train))
        return memoised(config, teacher, "sum", other, torch.device("cpu")).table.folder

    images, first = loaders.splits.train.images, memo.table.folder
    assert folder(images) == first and not capsys.readouterr().err
    changed = images.clone()
    changed[5, 0, 0, 0] ^= 1
    second = folder(changed)
    assert second.name == f"{first.name}-1"
    assert f"{first} holds outputs for other data or code (1 of 40 training images changed)" in capsys.readouterr().err
    assert folder(changed) == second and folder(images) == first  # each content keeps its own
    (first / "content.bin").unlink()  # as a version without digests left it
    assert folder(images).name == f"{first.name}-2"


def test_the_images_that_runs_add_are_remembered(tiny):
    _, teacher, loaders, memo = scene(tiny, "dataset.fraction=0.5")
    whole = build_loaders(other := tiny(WEIGHTS, *BASE, *MEMO), build_light(other))
    kept = np.fromfile(memo.table.folder / "content.bin", np.uint64)
    assert np.array_equal(kept.nonzero()[0], loaders.splits.train.origin.sort().values.numpy())
    assert memoised(other, teacher, "sum", whole, torch.device("cpu")).table.folder == memo.table.folder
    kept = np.fromfile(memo.table.folder / "content.bin", np.uint64)
    assert np.array_equal(kept, digests(whole.splits.train))


@pytest.mark.parametrize(
    "change",
    [
        "dataset.seed=1",
        "dataset.mean=[0.4,0.4,0.4]",
        "augmentation.crop.pad=2",
        "augmentation.flip=0.5",
        "augmentation.flip=1.0",
        "teacher.optimize=folded",
        "teacher.memo_dtype=fp16",
        POOLED,
        "trainer.channels_last=false",
        "teacher.net.widths=[8,8,16,12]",
    ],
)
def test_another_question_has_another_memo(tiny, change):
    assert scene(tiny)[3].table.folder != scene(tiny, change)[3].table.folder


def test_other_weights_and_cycles_of_another_seed_have_another_memo(tiny):
    config, teacher, loaders, memo = scene(tiny)
    other = memoised(config, teacher, "another sum", loaders, torch.device("cpu"))
    assert other.table.folder != memo.table.folder
    cycled = ("augmentation=strong", "augmentation.cycle=3")
    assert scene(tiny, *cycled)[3].table.folder != scene(tiny, *cycled, "data_seed=1")[3].table.folder


@pytest.mark.parametrize(
    "overrides, sentence",
    [
        (("augmentation=mixup",), "this augmentation mixes two"),
        (("augmentation=two_shifts",), "this augmentation makes several"),
        (("augmentation=strong",), "new ones each epoch; augmentation.cycle=30 makes 30 of each example"),
        (("trainer.batch_size=8",), "needs a trainer.batch_size of at least 16, found 8"),
        (("method=at",), "teacher.memo=true stores a teacher's logits (teacher.memo_features), no maps, and"),
        (("teacher.memo_features=[stage1]",), "keeps vectors such as pooled, but 'stage1' has shape [8, 8, 8]"),
        (("teacher.memo_features=[nothing]",), "no feature with role 'nothing'"),
        (("method=jacobian",), "and the method needs more: matching derivatives needs"),
        ((POOLED, "teacher.optimize=int8"), "no feature with role 'pooled'"),
    ],
)
def test_what_cannot_be_remembered_is_refused_in_a_line(tiny, overrides, sentence):
    with pytest.raises(ConfigError) as caught:
        tiny(*BASE, *MEMO, *overrides)
    assert len(caught.value.problems) == 1 and sentence in str(caught.value)


def test_answers_that_float16_cannot_hold_are_refused(tiny):
    _, teacher, loaders, memo = scene(tiny, "teacher.memo_dtype=fp16")
    teacher.net.fc.weight.mul_(1e8)
    with pytest.raises(UserError, match="overflow float16; set teacher.memo_dtype=fp32"):
        memo.of(next(iter(loaders.train.epoch(0))))


def test_whether_bits_depend_on_the_batch_is_found_out(tiny):
    _, teacher, loaders, _ = scene(tiny, "trainer.batch_size=32")
    assert agrees(teacher, loaders, torch.device("cpu"))

    class Shifted(torch.nn.Module):
        def __init__(self, by):
            super().__init__()
            self.by = by

        def forward(self, x):
            out = teacher.net(x)
            return type(out)(out.logits + 1e-6 * self.by(len(x)))

    for by in (lambda size: size, lambda size: torch.arange(size)[:, None] // 8):
        assert not agrees(Frozen(Shifted(by), None, None), loaders, torch.device("cpu"))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in options("method") if name not in OTHER_TASKS])
def test_every_method_is_the_same_with_a_memo_or_refuses_it(tiny, name):
    """Two epochs, so that answers are looked up as well as kept."""
    try:
        own = NEEDS.get(name, "augmentation=none")
        config = tiny(WEIGHTS, *BASE, *MEMO, POOLED, f"method={name}", "trainer.drop_last=true", own)
    except ConfigError as error:
        assert "teacher.memo=true stores" in str(error)
        return
    if config.teacher is None:
        return
    _, teacher, loaders, memo = scene(tiny, POOLED, "augmentation=none", "trainer.drop_last=true")
    light, found = build_light(config), []
    for taught in (teacher, memo):
        method = build_method(config, loaders, start_student(config, None), taught)
        update = make(
            config.update, method=method, optimizer=light.optimizer, lr_schedule=light.lr_schedule, autocast=None
        )
        method.train()
        with seeded(0, "steps"):
            steps = [
                update(batch, Progress(step, 8, 8.0))
                for step, batch in enumerate(b for epoch in range(4) for b in loaders.train.epoch(epoch))
            ]
        found.append([{k: float(v) for k, v in step.terms.items()} for step in steps])
    assert found[0] == found[1]
    assert isinstance(memo, Memo) and (memo.hits > 0) == (name not in DEAF)


def test_runs_that_take_turns_ask_a_memo_once_and_end_as_they_do_alone(tiny):
    configs = [tiny(*BASE, *MEMO, "data_seed=1", *own) for own in (("seed=1",), ("method=dkd",), ("seed=2",))]
    plain = [tiny(*BASE, "data_seed=1", *own) for own in (("seed=1",), ("method=dkd",), ("seed=2",))]
    results = dict(run_together(configs))
    shares = set()
    for place, config in enumerate(plain):
        found, expected = told(results[place].folder), told(run(config).folder)
        assert found.pop("fused") == 3 and expected.pop("fused") == 1
        assert found == expected
        shares.add(results[place].data["teacher"]["memo"]["share_computed"])
    assert max(shares) < 1
