"""Calls of a network that leave no trace."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy


@contextmanager
def quiet(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Evaluation mode and no gradients within the block; modes, buffers and random state are restored after it."""
    training = [(m, m.training) for m in model.modules()]
    buffers = [(b, b.clone()) for b in model.buffers() if not is_lazy(b)]
    try:
        model.eval()
        with torch.no_grad(), torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield
    finally:
        # module by module: train() would set a whole subtree to one mode
        for m, flag in training:
            m.training = flag
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)


@contextmanager
def randomised(model: nn.Module) -> Iterator[None]:
    """Random norms, biases and constant weights within the block, so that no layer is an identity or zero.

    At initialisation many layers are: norms, residual branches that start at zero, layer scales. Tensors would agree
    by chance.
    """
    generator = torch.Generator().manual_seed(0)

    def draw(x: Tensor) -> Tensor:
        return (torch.rand(x.shape, generator=generator, dtype=torch.float32) - 0.5).to(x.device, x.dtype)

    changed = [p for p in model.parameters() if p.is_floating_point() and not is_lazy(p) and (p.dim() < 2 or _flat(p))]
    scales = {id(m.running_var) for m in model.modules() if getattr(m, "running_var", None) is not None}
    means = {id(m.running_mean) for m in model.modules() if getattr(m, "running_mean", None) is not None}
    kept = [(p, p.detach().clone()) for p in changed]
    kept += [(b, b.clone()) for b in model.buffers() if id(b) in scales | means and not is_lazy(b)]
    try:
        with torch.no_grad():
            for x, before in kept:
                noise = 0.5 * draw(x)
                x.copy_(before * (1 + noise) if id(x) in scales else before + noise)
        yield
    finally:
        with torch.no_grad():
            for x, before in kept:
                x.copy_(before)


def _flat(p: Tensor) -> bool:
    return p.numel() > 0 and p.device.type != "meta" and bool((p == p.flatten()[0]).all())


def random_input(x: Tensor, size: int = 2) -> Tensor:
    """A random batch like `x`; `x` itself, cut to `size`, if it holds no real numbers."""
    if not x.is_floating_point():
        return x[:size].clone()
    generator = torch.Generator().manual_seed(1)
    return torch.randn(size, *x.shape[1:], generator=generator).to(x.device, x.dtype)
