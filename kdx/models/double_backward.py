"""Convolutions and batch norms with a cheap double backward, at a few times the cost of the layers.

torch's own second derivative of a convolution convolves with kernels as large as the maps, and that of a batch norm
takes two dozen passes over them. Here both are built from the operations of the first derivative.

Both layers share the mode that installs them, so they stay in one file.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from kdx.losses.base.memory_format import channels_last, positions

Gradients = tuple[Tensor | None, ...]

_inputs_only = False


@contextmanager
def inputs_only() -> Iterator[None]:
    """Within the block, layers run under `DoubleBackward` compute gradients of their inputs only, not of weights.

    A custom autograd.Function cannot see which gradients the caller needs, so it would compute all.
    """
    global _inputs_only
    before, _inputs_only = _inputs_only, True
    try:
        yield
    finally:
        _inputs_only = before


class DoubleBackward(TorchFunctionMode):
    """Within the block, convolutions and batch norms of maps get a cheap double backward.

    Values and first gradients are torch's own. All other operations are left to torch: maps that are not stored
    channels-last, convolutions with a string as padding, and layers other than 2-d convolutions and batch norms.
    """

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _MADE and torch.is_grad_enabled() and isinstance(args[0], Tensor) and channels_last(args[0]):
            made = _MADE[func](*args, **kwargs)
            if made is not None:
                return made
        return func(*args, **kwargs)


def _conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor | None:
    if isinstance(padding, str):
        return None
    how = *([v, v] if isinstance(v, int) else list(v) for v in (stride, padding, dilation)), groups
    device = input.device.type
    if torch.is_autocast_enabled(device):  # autocast does not cast the inputs of a custom autograd.Function
        to = torch.get_autocast_dtype(device)
        input, weight, bias = input.to(to), weight.to(to), None if bias is None else bias.to(to)
    with torch.autocast(device, enabled=False):
        return _one(_Convolution.apply(input, weight, bias, how))


def _batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor | None:
    if weight is None or bias is None or input.dtype != weight.dtype:
        return None
    if training:
        return _one(_Norm.apply(input, weight, bias, running_mean, running_var, momentum, eps))
    assert running_mean is not None and running_var is not None
    scale = weight * (running_var + eps).rsqrt()
    return _one(_Affine.apply(input, scale, bias - scale * running_mean))


_MADE: dict[Callable[..., Any], Callable[..., Tensor | None]] = {torch.conv2d: _conv2d, F.batch_norm: _batch_norm}


def _one(made: object) -> Tensor:
    assert isinstance(made, Tensor)
    return made


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, how: Any) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.how, ctx.biases = how, None if bias is None else list(bias.shape)
        return F.conv2d(x, weight, bias, *how)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Gradients:
        inputs, *weights = ctx.needs_input_grad[:3]
        needed = [inputs, *(n and not _inputs_only for n in weights)]
        found = _ConvolutionBackward.apply(*gradients, *ctx.saved_tensors, ctx.how, needed, ctx.biases)
        assert isinstance(found, tuple)
        return *found, None


class _ConvolutionBackward(torch.autograd.Function):
    """Both gradients are bilinear, in the output gradient and in the weight or input, so theirs have the same form."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, x: Tensor, weight: Tensor, how: Any, needed: Any, biases: Any) -> Gradients:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(g, x, weight)
        ctx.how = how
        return _back(g, x, weight, how, needed, biases)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Gradients:
        (along_x, along_weight, along_bias), (g, x, weight) = gradients, ctx.saved_tensors
        for_g, for_x, for_weight = [], None, None
        if along_x is not None:
            for_g.append(F.conv2d(along_x, weight, None, *ctx.how))
            for_weight = _back(g, along_x, weight, ctx.how, (False, True, False))[1]
        if along_weight is not None:
            for_g.append(F.conv2d(x, along_weight, None, *ctx.how))
            for_x = _back(g, x, along_weight, ctx.how, (True, False, False))[0]
        if along_bias is not None:
            for_g.append(_wide(along_bias).expand_as(g))
        return _sum(for_g), for_x, for_weight, None, None, None


def _back(g: Tensor, x: Tensor, weight: Tensor, how: Any, needed: Sequence[bool], biases: Any = None) -> Gradients:
    *sizes, groups = how
    return torch.ops.aten.convolution_backward(g, x, weight, biases, *sizes, False, [0, 0], groups, needed)


class _Affine(torch.autograd.Function):
    """`scale * x + shift` per channel: a batch norm in evaluation mode. Its gradients have the same form."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, shift: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, scale)
        return x * _wide(scale) if shift is None else torch.addcmul(_wide(shift), x, _wide(scale))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Gradients:
        (g,), (x, scale) = gradients, ctx.saved_tensors
        inputs, scales, shifts = (n and not (i and _inputs_only) for i, n in enumerate(ctx.needs_input_grad))
        return (
            _one(_Affine.apply(g, scale, None)) if inputs else None,
            _dots(g, x) if scales else None,
            _rows(g).sum(0) if shifts else None,
        )


class _Norm(torch.autograd.Function):
    """A batch norm in training mode."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        momentum: float,
        eps: float,
    ) -> Tensor:
        out, mean, inverse = torch.native_batch_norm(x, weight, bias, running_mean, running_var, True, momentum, eps)
        ctx.save_for_backward(x, weight, mean, inverse)
        ctx.eps = eps
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Gradients:
        inputs, *weights = ctx.needs_input_grad[:3]
        needed = [inputs, *(n and not _inputs_only for n in weights)]
        found = _NormBackward.apply(*gradients, *ctx.saved_tensors, ctx.eps, needed)
        assert isinstance(found, tuple)
        return *found, None, None, None, None


class _NormBackward(torch.autograd.Function):
    """The backward of a batch norm in training mode, with its own derivative written by hand.

    With x' = (x - m) r, where r is 1 / standard deviation, and means over examples and positions:
    `for_x = w r (g - mean(g) - x' mean(g x'))`, `for_w = sum(g x')` and `for_b = sum(g)`. `backward` differentiates
    the products of these with v, v_w and v_b; m and r are functions of x, too.
    """

    @staticmethod
    def forward(
        ctx: Any, g: Tensor, x: Tensor, weight: Tensor, mean: Tensor, inverse: Tensor, eps: float, needed: Any
    ) -> Gradients:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(g, x, weight, mean, inverse)
        return torch.ops.aten.native_batch_norm_backward(g, x, weight, None, None, mean, inverse, True, eps, needed)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Gradients:
        (v, v_w, v_b), (g, x, weight, mean, r) = gradients, ctx.saved_tensors
        n, scale = x.numel() // x.shape[1], weight * r
        centred = x - _wide(mean)
        g_mean, g_x = _rows(g).mean(0), r * _dots(g, centred) / n
        for_g, for_x, for_weight = [], [], None
        if v is not None:
            v_mean, v_x, v_g = _rows(v).mean(0), r * _dots(v, centred) / n, _dots(v, g) / n
            for_g += [_wide(-scale * v_mean), v * _wide(scale), centred * _wide(-scale * r * v_x)]
            slope = v_g - v_mean * g_mean - v_x * g_x
            for_weight = n * r * slope
            back = -scale * r
            for_x += [_wide(-back * (v_mean * g_x + g_mean * v_x)), v * _wide(back * g_x), g * _wide(back * v_x)]
            for_x += [centred * _wide(back * r * (slope - 2 * v_x * g_x))]
        if v_w is not None:
            for_g += [centred * _wide(r * v_w)]
            for_x += [_wide(-v_w * r * g_mean), g * _wide(v_w * r), centred * _wide(-v_w * r * r * g_x)]
        if v_b is not None:
            for_g += [_wide(v_b).expand_as(g)]
        return _sum(for_g), _sum(for_x), for_weight, None, None, None, None


def _wide(vector: Tensor) -> Tensor:
    """One value per channel, [C], as [C, 1, 1] to broadcast against maps."""
    return vector[:, None, None]


def _rows(maps: Tensor) -> Tensor:
    """Flatten maps [B, C, H, W] to [B * H * W, C]."""
    return positions(maps).flatten(0, 1)


def _dots(a: Tensor, b: Tensor) -> Tensor:
    """Inner product of two maps for each channel, [C]."""
    return torch.linalg.vecdot(_rows(a), _rows(b), dim=0)


def _sum(parts: list[Tensor]) -> Tensor | None:
    total = None
    for part in parts:
        total = part if total is None else total + part
    return total
