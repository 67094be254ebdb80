"""What a network's outputs do when its inputs move: whole Jacobians, and products with vectors from either side."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd import forward_ad

from kdx.core.types import Outputs
from kdx.models.double_backward import inputs_only

Network = Callable[[Tensor], Outputs]


def vector_jacobian(values: Tensor, inputs: Tensor, vectors: Tensor, graph: bool) -> Tensor:
    """Gradients of `<values, v>` with respect to the inputs, for several v: rows `v^T J` of each example.

    Args:
        values: [B, K], with a graph back to the inputs, each example's from its own input alone.
        inputs: [B, ...].
        vectors: [P, B, K].
        graph: Whether the result is differentiated again.

    Returns:
        [B, P, ...].
    """
    with inputs_only():
        rows = [
            torch.autograd.grad(values, inputs, v.to(values.dtype), create_graph=graph, retain_graph=True)[0]
            for v in vectors
        ]
    return torch.stack(rows, 1)


def jacobian(values: Tensor, inputs: Tensor, graph: bool) -> Tensor:
    """The whole Jacobian of each example, one backward pass for each output: for small nets.

    Args:
        values: [B, K], as in `vector_jacobian`.
        inputs: [B, ...].
        graph: Whether the result is differentiated again.

    Returns:
        [B, K, ...].
    """
    size, outputs = values.shape
    unit = torch.eye(outputs, dtype=values.dtype, device=values.device)
    return vector_jacobian(values, inputs, unit.unsqueeze(1).expand(outputs, size, outputs), graph)


def jacobian_vector(network: Network, inputs: Tensor, vectors: Tensor) -> tuple[Outputs, Tensor]:
    """Directional derivatives `J u` of the logits, by forward mode: one pass for each u, none back.

    In full precision, whatever the caller computes in: of half a batch norm's output torch makes the derivative whole,
    which the next convolution refuses.

    Args:
        network: Each example's outputs come from its own input alone.
        inputs: [B, ...].
        vectors: [P, B, ...], P at least 1.

    Returns:
        The outputs, and the derivatives [B, P, C]; both can be differentiated with respect to parameters.
    """
    outputs, tangents = None, []
    for u in vectors:
        with forward_ad.dual_level(), torch.autocast(inputs.device.type, enabled=False):
            dual = network(forward_ad.make_dual(inputs, u.to(inputs.dtype)))
            tangent = forward_ad.unpack_dual(dual.logits).tangent
            outputs = dual.primal() if outputs is None else outputs
            tangents.append(torch.zeros_like(outputs.logits) if tangent is None else tangent)
    assert outputs is not None
    return outputs, torch.stack(tangents, 1)
