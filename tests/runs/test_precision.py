"""bfloat16 against float32 by the first step, as any other order of sums sends two trainings apart."""

import pytest
import torch

from kdx.core.schedule import Progress

WEIGHTS = f"teacher.checkpoint='{__file__}'"


@pytest.mark.parametrize("method", ["kd", "dkd", "at", "rkd", "crd", "supervised"])
def test_the_first_step_has_the_same_loss_and_direction(tiny, built, method):
    seen = []
    for precision in ("fp32", "bf16"):
        trainer = built(tiny(WEIGHTS, f"method={method}", f"trainer.precision={precision}", "trainer.batch_size=32"))
        trainer.method.train()
        step = trainer.update(next(iter(trainer.loader.epoch(0))), Progress(0, 8, 8.0))
        gradient = torch.cat([p.grad.flatten() for p in trainer.method.student.parameters() if p.grad is not None])
        assert gradient.dtype == torch.float32 and step.report["loss"].dtype == torch.float32
        seen.append((float(step.report["loss"]), gradient))
    (loss, gradient), (low_loss, low_gradient) = seen
    assert 0 < abs(low_loss - loss) < 0.01 * abs(loss)
    assert torch.cosine_similarity(gradient, low_gradient, dim=0) > 0.98
