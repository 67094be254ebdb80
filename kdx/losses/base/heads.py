"""What terms ask of the networks themselves: a classifier, the batch norms before the features."""

from typing import Any

from torch import nn


def network_with(network: nn.Module | None, attribute: str) -> Any:
    """The network, or the one it wraps, that has an attribute; None where there is none.

    Teachers come in wrappers (frozen, tapped, memoised), and a term need not know them: each holds the
    wrapped network as `net`.
    """
    while network is not None and not hasattr(network, attribute):
        network = getattr(network, "net", None)
    return network


def linear_head(network: nn.Module | None, whose: str, term: str) -> nn.Linear:
    """The final classifier. Raises ValueError where the network shows none, or one that is not linear."""
    found = network_with(network, "head")
    head = None if found is None else found.head
    if not isinstance(head, nn.Linear):
        kind = "none" if head is None else f"a {type(head).__name__}"
        raise ValueError(f"{term} needs the {whose}'s classifier as one linear layer `head`; it has {kind}")
    return head


def require_width(head: nn.Linear, channels: int, role: str, whose: str, term: str) -> None:
    """Refuse a feature that is not what the classifier reads."""
    if head.in_features != channels:
        raise ValueError(
            f"{term} puts the {whose}'s '{role}' through the {whose}'s classifier, which reads {head.in_features} "
            f"channels; '{role}' has {channels}"
        )
