"""Builds the optimised teacher of a run, and refuses it if it deviates too much from the exact one."""

import time
from collections.abc import Iterator
from typing import Any

import torch

from kdx.config.schema import RunConfig
from kdx.core.errors import UserError
from kdx.core.tree import Tree, leaves, map_tree
from kdx.data.loaders import Loaders
from kdx.metrics.deviation import TEMPERATURES, Deviation
from kdx.models.teachers.frozen import Frozen
from kdx.models.teachers.optimized import optimize


def optimized(
    config: RunConfig, exact: Frozen, loaders: Loaders, device: torch.device
) -> tuple[Frozen, dict[str, Any]]:
    """The teacher in the form of `teacher.optimize`, and its entries in the result.

    int8 calibrates on augmented training examples of the run's first epoch. The deviation is measured on those of the
    second. No other split is read.

    Raises:
        UserError: The KL divergence exceeds `teacher.max_kl`, the agreement is below `teacher.min_agreement`, or the
            network does not support this form.
    """
    settings = config.teacher
    assert settings is not None
    how, count = settings.optimize, settings.calibration_examples
    if how == "exact":
        return exact, {"optimize": how}
    with torch.no_grad():
        seen = [exact.renormalise(_to(x, device)) for x in _examples(loaders, 0, count)]
        fast = Frozen(optimize(exact.net, how, seen), None, None)
        fast.scale, fast.shift = exact.scale, exact.shift
        found, speed = _compare(exact, fast, [_to(x, device) for x in _examples(loaders, 1, count)])
    _gate(how, found, settings.max_kl, settings.min_agreement)
    return fast, {"optimize": how, "deviation": found, "speed": round(speed, 2)}


def _examples(loaders: Loaders, epoch: int, count: int) -> Iterator[Tree]:
    for batch in loaders.train.epoch(epoch):
        yield batch.inputs
        count -= len(batch)
        if count <= 0:
            return


def _to(x: Tree, device: torch.device) -> Tree:
    return map_tree(lambda t: t.to(device), x)


def _compare(exact: Frozen, fast: Frozen, batches: list[Tree]) -> tuple[dict[str, float], float]:
    """The deviation, and the speed-up on this machine."""
    deviation, seconds = Deviation(), {exact: 0.0, fast: 0.0}
    for i, x in enumerate(batches):
        logits, device = {}, next(leaves(x)).device
        for net in seconds:
            began = _clock(device)
            logits[net] = net(x).logits
            # the first call includes warm-up
            seconds[net] += _clock(device) - began if i or len(batches) == 1 else 0.0
        deviation.update(logits[exact], logits[fast])
    return deviation.compute(), seconds[exact] / max(seconds[fast], 1e-9)


def _clock(device: torch.device) -> float:
    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def _gate(how: str, found: dict[str, float], max_kl: float, min_agreement: float) -> None:
    kl = max(found[f"kl_t{t}"] for t in TEMPERATURES)
    # negated, so that NaN fails the gate
    if not (kl <= max_kl and found["agreement"] >= min_agreement):
        raise UserError(
            f"teacher.optimize={how} deviates too much from the exact teacher: KL {kl:.2g} (max_kl {max_kl:g}), "
            f"agreement {found['agreement']:.4f} (min_agreement {min_agreement:g}); use teacher.optimize=folded, "
            "or relax the limits teacher.max_kl and teacher.min_agreement"
        )
