"""Lines before training about settings that do something else than they seem to."""

from itertools import count

import pytest

from kdx.config.compose import ConfigError, compose
from kdx.runs.build import build_light, build_loaders, build_method, make, start_student
from kdx.runs.checks.remarks import remarks, resumed
from kdx.runs.prepare import examine, prepare
from kdx.runs.run import run
from kdx.runs.training import build_trainer

EPOCHS = "trainer.schedule_epochs=10"


def config(tiny, overrides: list[str]):
    schedule = [] if any(o.startswith("schedule=") for o in overrides) else ["schedule=constant"]
    return tiny("method=kd", EPOCHS, *schedule, *overrides)


def told(config) -> list[str]:
    light = build_light(config)
    return list(remarks(config, light, build_loaders(config, light)))


def test_a_plain_run_has_no_line(tiny):
    assert told(tiny("method=dkd", "schedule=cosine")) == []


@pytest.mark.parametrize(
    "overrides, start",
    [
        (
            ["schedule=multistep", "schedule.milestones=[5,10,12]"],
            "schedule: the run has 10 schedule epochs, and the mi",
        ),
        (
            ["schedule=cosine", "schedule.warmup_epochs=10", "schedule.warmup_start=0.1"],
            "schedule: the run has 10 sched",
        ),
        (
            ["schedule=cosine", "schedule.warmup_epochs=2"],
            "schedule: the first step has a learning rate of 0; schedule",
        ),
        (
            ["method.weights.kd={_target_: kdx.core.schedule.WarmUp, to: 1.0, epochs: 11}"],
            "method.weights.kd: the run ",
        ),
        (["trainer.ema=0.9"], "trainer.ema: after 8 steps of decay 0.9, 43% of the average are the untrained network"),
        (
            ["dataset.fraction=0.5", "dataset.val_fraction=0.25"],
            "dataset.fraction=0.5 is a share of the training set w",
        ),
    ],
)
def test_each_setting_has_its_line(tiny, overrides: list[str], start: str):
    lines = told(config(tiny, overrides))
    assert len(lines) == 1 and lines[0].startswith(start), lines
    assert len(lines[0]) < 300


@pytest.mark.parametrize(
    "overrides",
    [
        ["schedule=multistep", "schedule.milestones=[5,9]"],
        ["schedule=cosine", "schedule.warmup_epochs=9", "schedule.warmup_start=0.1"],
        ["method.weights.kd={_target_: kdx.core.schedule.WarmUp, to: 1.0, epochs: 10}"],
        ["trainer.ema=0.7"],
        ["trainer.ema={decay: 0.9, warmup: true}"],
        ["dataset.fraction=0.5"],
        ["dataset.val_fraction=0.25"],
    ],
)
def test_a_setting_that_takes_effect_has_none(tiny, overrides: list[str]):
    assert told(config(tiny, overrides)) == []


def test_a_run_prints_each_line_once(tiny, capsys):
    for seed in (0, 1):
        run(tiny("method=supervised", "trainer.ema=0.95", f"seed={seed}"))
    assert capsys.readouterr().err.count("trainer.ema: after 8 steps of decay 0.95") == 1


def test_labels_are_smoothed_once():
    mixing = ["method=supervised", "augmentation=mixup", "augmentation.mixing.label_smoothing=0.1"]
    examine(compose(mixing))
    with pytest.raises(ConfigError, match="mixing.label_smoothing and method.label_smoothing both smooth the labels"):
        examine(compose([*mixing, "method.label_smoothing=0.1"]))


@pytest.mark.parametrize("options, word", [("{warmth: 3}", "warmth"), ("{betas: [0.9]}", "betas")])
def test_wrong_options_of_an_optimizer_are_reported_before_the_teacher_is_trained(options: str, word: str):
    with pytest.raises(ConfigError, match=f"optimizer.options.*{word}"):
        prepare(compose(["method=kd", "optimizer=timm", "optimizer.name=adamw", f"optimizer.options={options}"]))


@pytest.mark.parametrize("key", ["optimizer.lr", "trainer.schedule_epochs", "update.clip_norm", "dataset.fraction"])
def test_a_schedule_where_a_number_is_wanted_is_refused(key: str):
    node = "{_target_: kdx.core.schedule.Linear, start: 1.0, end: 0.5, until: 3}"
    with pytest.raises(ConfigError, match=f"{key}: must be a number.*, found a Linear"):
        examine(compose(["method=kd", f"{key}={node}"]))


def test_a_resume_with_other_threads_is_reported_and_recorded(tiny, tmp_path):
    config = tiny("method=supervised")
    light = build_light(config)

    loaders = build_loaders(config, light)

    def trainer():
        method = build_method(config, loaders, start_student(config, None), None)
        return build_trainer(config, tmp_path, light, loaders, method)

    first = trainer()
    next(first.steps())
    first.threads = [3]
    first.save()
    again = trainer()
    assert again.threads == [3, 1]
    (line,) = resumed(again.threads, light.device)
    assert "resumed with 1 CPU threads after a start with 3" in line and "trainer.threads=3" in line
    again.save()
    assert trainer().threads == [3, 1] and not list(resumed([1], light.device))


def test_an_interrupt_promises_to_resume_only_from_a_checkpoint(tiny, monkeypatch):
    config = tiny("method=supervised", "trainer.checkpoint_seconds=0")

    def stop_at(number: int) -> str:
        taken = count(1)

        def stop(*_):
            if next(taken) == number:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr("kdx.engine.record.meter.Meter.add", stop)
            with pytest.raises(KeyboardInterrupt) as raised:
                run(config)
        return "".join(raised.value.args)

    assert stop_at(1) == " before the first checkpoint"
    assert stop_at(3) == ""  # the checkpoints of two steps are there


def test_overfitting_takes_a_few_examples():
    dataset = compose(["method=supervised", "debug=overfit", "dataset=digits"]).config["dataset"]
    assert len(make(dataset).splits().train) == dataset["max_examples"] == 64
