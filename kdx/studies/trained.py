"""Finished students and the data that they are compared on."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from kdx.config.schema import RunConfig
from kdx.core.batch import Batch
from kdx.core.errors import UserError
from kdx.core.spec import DataSpec
from kdx.data.loaders import EvalLoader
from kdx.data.on_device import on_device
from kdx.runs.build import build_light, build_loaders, build_student, start_student
from kdx.runs.fill import weights_file


class Evaluation:
    """Data and device of a run, loaded without training anything.

    Args:
        config: Prepared.
    """

    def __init__(self, config: RunConfig):
        self.light = build_light(config)
        self.loaders, self.device = build_loaders(config, self.light), self.light.device

    def batches(self, split: str) -> "Batches":
        """Batches of a split, without augmentation. Raises UserError where the data set has no such split."""
        if split not in self.loaders.evals:
            raise UserError(f"study.split: there is no split '{split}'; there are: {', '.join(self.loaders.evals)}")
        return Batches(self.loaders.evals[split], self.loaders.spec, self.device)

    def student(self, config: RunConfig, weights: Path) -> nn.Module:
        """The student of a run with its exported weights, in evaluation mode on the device."""
        return build_student(config, weights).eval().to(self.device)

    def start(self, config: RunConfig) -> nn.Module:
        """The student as its training started, in evaluation mode on the device."""
        given = config.student.checkpoint
        weights = None if given is None else weights_file(given, "student.checkpoint")
        return start_student(config, weights).eval().to(self.device)


class Batches:
    """Batches of a split on a device; each iteration reads the split from its beginning."""

    def __init__(self, loader: EvalLoader, spec: DataSpec, device: torch.device):
        self.batch_size, self.spec, self._loader, self._device = loader.batch_size, spec, loader, device

    def __iter__(self) -> Iterator[Batch]:
        return on_device(self._loader, self._device)


@torch.no_grad()
def logits(networks: Mapping[str, nn.Module], batches: Batches) -> tuple[dict[str, Tensor], Tensor]:
    """Logits [N, C] of each network, and the labels [N], on the CPU."""
    rows: dict[str, list[Tensor]] = {name: [] for name in networks}
    labels = []
    for batch in batches:
        for name, net in networks.items():
            rows[name].append(net(batch.inputs).logits.cpu())
        labels.append(batch.labels.cpu())
    return {name: torch.cat(parts) for name, parts in rows.items()}, torch.cat(labels)
