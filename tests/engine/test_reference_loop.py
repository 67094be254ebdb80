"""The trainer against a plain loop, bit for bit."""

import pytest
import torch
from torch.nn import functional as F


@pytest.mark.parametrize("augmentation", ["none", "standard"])
def test_ten_steps_are_those_of_a_loop_written_by_hand(tiny, built, augmentation: str):
    config = tiny(
        f"augmentation={augmentation}",
        "trainer.log_steps=1",
        "trainer.duration.steps=10",
        "schedule.milestones=[120]",
    )
    trainer, reference = built(config, "ours"), built(config, "theirs")
    trainer.fit()
    trace = [line for line in trainer.log.lines() if "train/loss" in line]

    student, teacher = reference.method.student.train(), reference.method.teacher.net
    sgd = torch.optim.SGD(student.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    batches = [b for epoch in (0, 1) for b in reference.loader.epoch(epoch)]
    assert len(batches) == len(trace) == 10
    for step, (batch, line) in enumerate(zip(batches, trace, strict=True)):
        for group in sgd.param_groups:
            group["lr"] = 0.01 if step < 5 else 0.01 * 0.1  # half of 240 epochs
        with torch.no_grad():
            taught = teacher(batch.inputs).logits
        logits = student(batch.inputs).logits
        log_p, log_q = ((x / 4).log_softmax(1) for x in (taught, logits))
        kl = (log_p.exp() * (log_p - log_q)).sum(1)
        ce, kd = F.cross_entropy(logits, batch.labels, reduction="none").mean(), (kl * 16).mean()
        loss = 0.1 * ce + 0.9 * kd
        sgd.zero_grad()
        loss.backward()
        sgd.step()
        assert line["train/terms/ce"] == ce.item() and line["train/terms/kd"] == kd.item()
        assert line["train/loss"] == loss.item() and line["train/lr"] == sgd.param_groups[0]["lr"]
        assert line["train/top1"] == pytest.approx((logits.argmax(1) == batch.labels).float().mean().item(), abs=1e-7)
    ours, theirs = trainer.method.student.state_dict(), student.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


def test_lines_are_means_over_the_steps_since_the_last(tiny, built):
    fine, coarse = (built(tiny(f"trainer.log_steps={n}", "evals.test.every=null"), f"by {n}") for n in (1, 3))
    fine.fit()
    coarse.fit()
    every, lines = fine.log.lines(), coarse.log.lines()
    assert [line["step"] for line in every] == list(range(1, 9)) and [line["step"] for line in lines] == [3, 6, 8]
    for key in ("train/loss", "train/terms/ce", "train/terms/kd", "train/top1"):
        values = [line[key] for line in every]
        means = [sum(part) / len(part) for part in (values[:3], values[3:6], values[6:])]
        assert [line[key] for line in lines] == pytest.approx(means, rel=1e-12)
