"""A teacher of which less is known than its network could tell."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from kdx.core.types import Outputs
from kdx.losses.base.heads import network_with

FIXED = ("head", "preact_norms")  # what networks are asked for beside outputs; it has nothing to do with a batch


class Limited(nn.Module):
    """A teacher with its logits, some of its feature vectors, and no derivatives.

    So is one whose answers are kept, or one in integers. Methods that need more find out before they train.

    Args:
        teacher: The teacher; not named `net`, so that nobody finds derivatives behind this.
        roles: Features that stay; vectors [B, D].
    """

    def __init__(self, teacher: nn.Module, roles: Sequence[str]):
        super().__init__()
        self.teacher, self.roles = teacher, tuple(roles)

    def __getattr__(self, name: str) -> Any:
        if name in FIXED and (found := network_with(self.teacher, name)) is not None:
            return getattr(found, name)
        return super().__getattr__(name)

    def forward(self, x: Any) -> Outputs:
        """Raises ValueError where a role is missing, or its feature no vector."""
        outputs = self.teacher(x)
        features = {role: outputs.feature(role) for role in self.roles}
        for role, feature in features.items():
            if feature.dim() != 2:
                shape = list(feature.shape[1:])
                raise ValueError(
                    f"teacher.memo_features keeps vectors such as pooled; '{role}' is {shape} for each view"
                )
        return Outputs(outputs.logits, features)
