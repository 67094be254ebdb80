"""A black-box teacher: logits and selected feature vectors, without derivatives."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from kdx.core.outputs import Outputs
from kdx.losses.base.heads import holder_of

FIXED = (
    "head",
    "preact_norms",
    "classifier_for",
    "feature_spec",
)  # attributes that methods read besides outputs; they do not depend on a batch


class BlackBoxTeacher(nn.Module):
    """A teacher reduced to its logits and some feature vectors, without derivatives.

    Teachers with cached outputs and int8 teachers offer no more than this. Methods that need more raise before
    training.

    Args:
        teacher: The teacher. The attribute is not named `net`, so that methods do not look behind this wrapper for
            derivatives.
        roles: Roles of the features to keep; vectors [B, D].
    """

    def __init__(self, teacher: nn.Module, roles: Sequence[str]):
        super().__init__()
        self.teacher, self.roles = teacher, tuple(roles)

    def __getattr__(self, name: str) -> Any:
        if name in FIXED and (found := holder_of(self.teacher, name)) is not None:
            return getattr(found, name)
        return super().__getattr__(name)

    def forward(self, x: Any) -> Outputs:
        """Return logits and kept features; raise ValueError if a role is missing or its feature is not a vector."""
        outputs = self.teacher(x)
        features = {role: outputs.feature(role) for role in self.roles}
        for role, feature in features.items():
            if feature.dim() != 2:
                shape = list(feature.shape[1:])
                raise ValueError(
                    f"teacher.memo_features keeps vectors such as pooled, but '{role}' has shape {shape} for each view"
                )
        return Outputs(outputs.logits, features)
