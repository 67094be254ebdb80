"""Batch norms synchronised across processes, so that the number of processes changes no statistics."""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from kdx.core import distributed
from kdx.core.errors import UserError
from kdx.losses.base.adapters import Norm


class _SyncBatchNorm(_BatchNorm):
    """Batch norm over the global batch, which is split across the processes.

    Built from plain operations: slower than torch's own for GPUs, but it runs on any device and supports double
    backward.
    """

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        self._check_input_dim(input)
        x = input.float() if input.dtype in (torch.bfloat16, torch.float16) else input
        axes, shape = [0, *range(2, x.dim())], (1, -1, *(1,) * (x.dim() - 2))
        count = x.new_full((1,), x.numel() / x.shape[1])
        mean, count = distributed.all_reduce_sum(torch.cat([x.sum(axes), count])).split([x.shape[1], 1])
        mean = mean / count
        centred = x - mean.view(shape)
        variance = distributed.all_reduce_sum(centred.square().sum(axes)) / count
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


class _SyncBatchNorm1d(_SyncBatchNorm, nn.BatchNorm1d):
    pass


class _SyncBatchNorm2d(_SyncBatchNorm, nn.BatchNorm2d):
    pass


class _SyncBatchNorm3d(_SyncBatchNorm, nn.BatchNorm3d):
    pass


KINDS: dict[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm1d: _SyncBatchNorm1d,
    nn.BatchNorm2d: _SyncBatchNorm2d,
    Norm: _SyncBatchNorm2d,
    nn.BatchNorm3d: _SyncBatchNorm3d,
}


def sync_batch_norms(network: nn.Module, device: torch.device) -> None:
    """Synchronise the batch norms of a network across processes, in place; names and weights stay the same.

    Args:
        network: A network replicated in all processes. Frozen parts are fine: in evaluation mode nothing changes.
        device: Device of the network. On a GPU torch's `SyncBatchNorm` is used.

    Raises:
        UserError: A trained batch norm of an unsupported class.
    """
    for module in network.modules():
        if not isinstance(module, _BatchNorm) or isinstance(module, nn.SyncBatchNorm):
            continue
        if type(module) not in KINDS:
            if any(p.requires_grad for p in module.parameters()):
                raise UserError(
                    f"{type(module).__name__} cannot share its statistics across processes, so the number of "
                    "processes would change the result; use torch's own batch norms, or train in one process"
                )
            continue
        # changes the class, not the module: other objects may hold a reference to the module
        if device.type == "cuda":
            vars(module)["process_group"] = None  # all processes
            object.__setattr__(module, "__class__", nn.SyncBatchNorm)
        else:
            object.__setattr__(module, "__class__", KINDS[type(module)])
