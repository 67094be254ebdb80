"""Base class of the package's networks."""

from collections.abc import Mapping, Sequence
from typing import TypeVar

from torch import Tensor, nn

from kdx.core.outputs import Outputs

M = TypeVar("M", bound=nn.Module)


class Net(nn.Module):
    """A classifier whose `forward` maps inputs [B, ...] to `Outputs`.

    Feature roles, where the architecture has them:
        `stage0`: output of the stem.
        `stage1` ... `stageN`: output of each stage, as in the literature's list of features.
        `stage1.preact` ...: the same before the stage's last ReLU. Pre-activation and linear designs have no such
            ReLU; their classes document the tensor that the literature uses instead.
        `final`: the last map [B, D, H, W]; `pooled` is its mean over H and W.
        `pooled`: the penultimate vector [B, D], the input of `head`.
    """

    @property
    def head(self) -> nn.Linear:
        """The final linear classifier, from D features to C logits."""
        raise NotImplementedError

    def resume(self, role: str, x: Tensor) -> Outputs:
        """Run the rest of the forward pass, from a stage's output to the logits. Branches of a shared trunk use it.

        Args:
            role: Role of the stage, such as "stage2".
            x: The output of that stage.

        Returns:
            The logits, and the features from that stage on.

        Raises:
            ValueError: The network has no such stage.
        """
        raise NotImplementedError

    def preact_norms(self) -> dict[str, nn.BatchNorm2d]:
        """The batch norm whose output is each `stageN.preact`, by role. OFD derives its margins from them."""
        return {}

    def _norms(self, paths: Mapping[str, str]) -> dict[str, nn.BatchNorm2d]:
        """The modules at these paths, by role, without those that another norm replaces."""
        found = {role: self.get_submodule(path) for role, path in paths.items()}
        return {role: norm for role, norm in found.items() if isinstance(norm, nn.BatchNorm2d)}


def stages_after(role: str, stages: Sequence[M], first: int) -> list[tuple[int, M]]:
    """The stages after a given one, with their numbers.

    Args:
        role: Role of the given stage, such as "stage2".
        stages: The modules of all stages, in order, without the stem.
        first: Number of the first stage from which the forward pass can resume; 0 if the stem is "stage0".

    Raises:
        ValueError: The network cannot resume from this stage.
    """
    known = [f"stage{i}" for i in range(first, len(stages) + 1)]
    if role not in known:
        raise ValueError(f"this network cannot resume from '{role}'; choose one of: {', '.join(known)}")
    done = int(role.removeprefix("stage"))
    return list(enumerate(stages, 1))[done:]
