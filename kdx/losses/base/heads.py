"""Access to parts of the networks: the wrapped network that has an attribute, and its classifier."""

from typing import Any

from torch import nn


def holder_of(network: nn.Module | None, attribute: str) -> Any:
    """The network, or the network inside its wrappers, that has an attribute.

    Wrappers of teachers (frozen, tapped, memoised) hold the wrapped network as `net`.

    Args:
        network: A network in any number of wrappers, or None.
        attribute: Name of the attribute.

    Returns:
        The outermost network that has the attribute; None where there is none.

    Example:
        >>> inner = nn.Module()
        >>> inner.head = nn.Linear(4, 2)
        >>> outer = nn.Module()
        >>> outer.net = inner
        >>> holder_of(outer, "head") is inner
        True
    """
    while network is not None and not hasattr(network, attribute):
        network = getattr(network, "net", None)
    return network


def linear_head(network: nn.Module | None, whose: str, term: str) -> nn.Linear:
    """The network's final classifier.

    Args:
        network: A network in any number of wrappers, or None.
        whose: "student" or "teacher", for the message.
        term: Name of the term, for the message.

    Raises:
        ValueError: The network has no `head`, or its `head` is not one linear layer.

    Example:
        >>> net = nn.Module()
        >>> net.head = nn.Linear(4, 2)
        >>> linear_head(net, "teacher", "SimKD")
        Linear(in_features=4, out_features=2, bias=True)
    """
    found = holder_of(network, "head")
    head = None if found is None else found.head
    if not isinstance(head, nn.Linear):
        kind = "none" if head is None else f"a {type(head).__name__}"
        raise ValueError(f"{term} needs the {whose}'s classifier as one linear layer `head`; it has {kind}")
    return head


def classifier_of(network: nn.Module | None, role: str, channels: int, whose: str, term: str) -> nn.Module:
    """The part of a network that turns a feature into logits.

    Networks of timm, torchvision and plain modules find it by value: a linear layer, or several modules in a row. A
    network that names its own `head` is taken at its word, if the widths agree.

    Args:
        network: A network in any number of wrappers, or None.
        role: The feature; a map is averaged over its positions.
        channels: Channels of the feature.
        whose: "student" or "teacher", for the message.
        term: Name of the term, for the message.

    Raises:
        ValueError: Nothing in the network turns this feature into its logits.

    Example:
        >>> net = nn.Module()
        >>> net.head = nn.Linear(4, 2)
        >>> classifier_of(net, "pooled", 4, "teacher", "SRRL")
        Linear(in_features=4, out_features=2, bias=True)
    """
    found = holder_of(network, "classifier_for")
    if found is None:
        head = linear_head(network, whose, term)
        if role not in ("final", "pooled") and holder_of(network, "preact_norms") is not None:
            raise ValueError(
                f"{term} puts the {whose}'s '{role}' through its classifier, which reads 'final' or 'pooled'"
            )
        require_width(head, channels, role, whose, term)
        return head
    classifier = found.classifier_for(role, channels)
    if classifier is None:
        raise ValueError(
            f"{term} needs the part of the {whose} that turns '{role}' into logits; no module or row of modules of it "
            "gives the network's logits"
        )
    return classifier


def local_classifier(network: nn.Module | None, role: str, channels: int, whose: str, term: str) -> nn.Linear:
    """`classifier_of` a map, if it is one linear layer, which applies at each position as well as to the mean.

    Raises:
        ValueError: There is none, or other layers lie between the map and the logits.

    Example:
        >>> net = nn.Module()
        >>> net.head = nn.Linear(4, 2)
        >>> local_classifier(net, "last", 4, "teacher", "CAT-KD")
        Linear(in_features=4, out_features=2, bias=True)
    """
    classifier = classifier_of(network, role, channels, whose, term)
    if not isinstance(classifier, nn.Linear):
        raise ValueError(
            f"{term} applies the {whose}'s classifier at each position of '{role}', so it must be one linear layer "
            "after the mean; here other layers take part"
        )
    return classifier


def require_width(head: nn.Linear, channels: int, role: str, whose: str, term: str) -> None:
    """Refuse a feature that the classifier does not read.

    Raises:
        ValueError: The numbers of channels differ.

    Example:
        >>> require_width(nn.Linear(4, 2), 4, "pooled", "teacher", "SRRL")
        >>> require_width(nn.Linear(4, 2), 8, "pooled", "teacher", "SRRL")
        Traceback (most recent call last):
        ValueError: SRRL puts the teacher's 'pooled' through the teacher's classifier, which reads 4...
    """
    if head.in_features != channels:
        raise ValueError(
            f"{term} puts the {whose}'s '{role}' through the {whose}'s classifier, which reads {head.in_features} "
            f"channels; '{role}' has {channels}"
        )
