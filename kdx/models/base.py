"""What a network of this package is, beyond returning `Outputs`."""

from torch import nn


class Net(nn.Module):
    """A classifier whose `forward` maps inputs [B, ...] to `Outputs`.

    Roles of its features, as far as the architecture has them:
        `stage0`: output of the stem.
        `stage1` ... `stageN`: output of each stage, as the literature's list of features has it.
        `stage1.preact` ...: the same before the stage's last ReLU (or, for pre-activation and linear
            designs, what the literature takes in its place; each class says).
        `final`: the last map [B, D, H, W], whose mean over H and W is `pooled`.
        `pooled`: the penultimate vector [B, D], input of `head`.
    """

    @property
    def head(self) -> nn.Linear:
        """The final classifier, D to C."""
        raise NotImplementedError

    def preact_norms(self) -> dict[str, nn.BatchNorm2d]:
        """The batch norm that ends in each `stageN.preact`, by role: what OFD derives its margins from."""
        return {}

    def _norm(self, path: str) -> nn.BatchNorm2d:
        norm = self.get_submodule(path)
        assert isinstance(norm, nn.BatchNorm2d)
        return norm
