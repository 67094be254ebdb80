"""Batch norms of several processes that train one network, so that their number changes no statistics."""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from kdx.core import distributed
from kdx.core.errors import UserError
from kdx.losses.base.adapters import Norm


class _Joined(_BatchNorm):
    """Normalises by the statistics of the whole batch, of which each process has a share.

    Made of plain operations: slower than torch's own for GPUs, but it runs anywhere and can be differentiated twice.
    """

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        self._check_input_dim(input)
        x = input.float() if input.dtype in (torch.bfloat16, torch.float16) else input
        axes, shape = [0, *range(2, x.dim())], (1, -1, *(1,) * (x.dim() - 2))
        count = x.new_full((1,), x.numel() / x.shape[1])
        mean, count = distributed.total(torch.cat([x.sum(axes), count])).split([x.shape[1], 1])
        mean = mean / count
        centred = x - mean.view(shape)
        variance = distributed.total(centred.square().sum(axes)) / count
        self._track(mean.detach(), variance.detach() * count / (count - 1))
        out = centred * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            out = out * self.weight.view(shape) + self.bias.view(shape)
        return out.to(input.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_(variance.to(self.running_var.dtype), share)


class _Joined1d(_Joined, nn.BatchNorm1d):
    pass


class _Joined2d(_Joined, nn.BatchNorm2d):
    pass


class _Joined3d(_Joined, nn.BatchNorm3d):
    pass


KINDS: dict[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm1d: _Joined1d,
    nn.BatchNorm2d: _Joined2d,
    Norm: _Joined2d,
    nn.BatchNorm3d: _Joined3d,
}


def join_norms(network: nn.Module, device: torch.device) -> None:
    """Let all batch norms of a network that train see the whole batch, in place; names and weights stay.

    Args:
        network: What several processes have a copy of. What is frozen may be part of it: in evaluation mode nothing
            changes.
        device: Where it is. On a GPU torch's own kind does it.

    Raises:
        UserError: A batch norm of a kind that cannot.
    """
    for module in network.modules():
        if not isinstance(module, _BatchNorm) or isinstance(module, nn.SyncBatchNorm):
            continue
        if type(module) not in KINDS:
            if any(p.requires_grad for p in module.parameters()):
                raise UserError(
                    f"{type(module).__name__} cannot share its statistics between processes, so that their number "
                    "would change the recipe; choose a network with torch's own batch norms, or train in one process"
                )
            continue
        # the class and not the module, which others may refer to
        if device.type == "cuda":
            vars(module)["process_group"] = None  # all processes
            object.__setattr__(module, "__class__", nn.SyncBatchNorm)
        else:
            object.__setattr__(module, "__class__", KINDS[type(module)])
