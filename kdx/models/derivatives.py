"""Input derivatives of a network: Jacobians, vector-Jacobian and Jacobian-vector products."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd import forward_ad

from kdx.core.outputs import Outputs
from kdx.models.double_backward import inputs_only

Network = Callable[[Tensor], Outputs]


def vector_jacobian(values: Tensor, inputs: Tensor, vectors: Tensor, graph: bool) -> Tensor:
    """Vector-Jacobian products: `v^T J` of each example for several v, the input gradients of `<values, v>`.

    Args:
        values: Outputs [B, K] with a graph back to the inputs; row b depends on input b alone.
        inputs: Inputs [B, ...].
        vectors: The vectors v, [P, B, K].
        graph: Whether to build a graph, so that the result can be differentiated.

    Returns:
        Products [B, P, ...].
    """
    with inputs_only():
        rows = [
            torch.autograd.grad(values, inputs, v.to(values.dtype), create_graph=graph, retain_graph=True)[0]
            for v in vectors
        ]
    return torch.stack(rows, 1)


def jacobian(values: Tensor, inputs: Tensor, graph: bool) -> Tensor:
    """Jacobian of each example, by one backward pass per output: for small networks.

    Args:
        values: Outputs [B, K], as in `vector_jacobian`.
        inputs: Inputs [B, ...].
        graph: Whether to build a graph, so that the result can be differentiated.

    Returns:
        Jacobians [B, K, ...].
    """
    size, outputs = values.shape
    unit = torch.eye(outputs, dtype=values.dtype, device=values.device)
    return vector_jacobian(values, inputs, unit.unsqueeze(1).expand(outputs, size, outputs), graph)


def jacobian_vector(network: Network, inputs: Tensor, vectors: Tensor) -> tuple[Outputs, Tensor]:
    """Jacobian-vector products `J u` of the logits by forward mode: one forward pass per u, no backward pass.

    Autocast is off: torch returns a float32 tangent for a batch norm's half-precision output, which the next
    convolution rejects.

    Args:
        network: A network in which row b of the outputs depends on input b alone.
        inputs: Inputs [B, ...].
        vectors: The directions u, [P, B, ...], P at least 1.

    Returns:
        The outputs, and the derivatives [B, P, C]; both are differentiable in the parameters.
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
