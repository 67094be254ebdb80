"""Search for the stages of an unknown network, from its modules alone."""

from collections.abc import Iterator, Sequence

from torch import nn

PARTS = 4
"""Number of stages of a network whose maps all have one size."""
_CONTAINERS = (nn.Sequential, nn.ModuleList)
# modules that halve the resolution by slicing, without a stride
_MERGING = ("PatchMerging", "PatchMergingV2")


def find_stages(net: nn.Module, head: nn.Module) -> dict[str, str]:
    """Find the stages of a network: module path by role.

    A stage ends right before a module that lowers the resolution, and at the last module with convolutions or linear
    layers. If that gives fewer than two stages (vision transformers), the longest sequence of like blocks is cut into
    four equal parts, and each ends a stage. `name_stages` numbers the roles.

    Args:
        net: The network.
        head: The classifier, which belongs to no stage.
    """
    units = list(_units(net, head))
    strides = [_stride(m) for _, m in units]
    ends = [i for i in range(len(units) - 1) if strides[i + 1] > 1]
    last = max((i for i, stride in enumerate(strides) if stride > 1), default=0)
    tail = [i for i in range(last, len(units)) if _has_layers(units[i][1])]
    ends = sorted({*ends, *tail[-1:]})
    if len(ends) < 2:
        return name_stages(parts(_repeated(net)), reduction=None)
    reduction = 1
    for stride in strides[: ends[0] + 1]:
        reduction *= stride
    return name_stages([units[i][0] for i in ends], reduction)


def name_stages(paths: Sequence[str], reduction: int | None) -> dict[str, str]:
    """Number the stages, from `stage0` if the first has at least half the input's resolution, else from `stage1`.

    Args:
        paths: Module paths in forward order.
        reduction: Side of the input divided by that of the first stage's output; None if there are no maps.
    """
    first = 0 if reduction is not None and reduction <= 2 else 1
    return {f"stage{i}": path for i, path in enumerate(paths, first)}


def parts(blocks: Sequence[str]) -> list[str]:
    """The last blocks of four equal parts; all of up to four blocks.

    Example:
        >>> parts([str(i) for i in range(1, 13)])
        ['3', '6', '9', '12']
    """
    if len(blocks) <= PARTS:
        return list(blocks)
    return [blocks[round(len(blocks) * (i + 1) / PARTS) - 1] for i in range(PARTS)]


def _units(module: nn.Module, head: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The children in order; a container with several children that lower the resolution is replaced by these."""
    for name, child in module.named_children():
        if any(m is head for m in child.modules()):
            continue
        if isinstance(child, _CONTAINERS) and sum(_stride(c) > 1 for c in child) > 1:
            yield from _units(child, head, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", child


def _stride(module: nn.Module) -> int:
    strides = [1]
    for m in module.modules():
        if isinstance(m, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
            strides += [m.stride] if isinstance(m.stride, int) else m.stride
        elif type(m).__name__ in _MERGING:
            strides.append(2)
    return max(strides)


def _has_layers(module: nn.Module) -> bool:
    return any(isinstance(m, nn.Conv2d | nn.Linear) for m in module.modules())


def _repeated(net: nn.Module) -> list[str]:
    best: list[str] = []
    for path, module in net.named_modules():
        if isinstance(module, _CONTAINERS):
            children = list(module.named_children())
            alike = len({type(c) for _, c in children}) == 1 and all(list(c.children()) for _, c in children)
            if alike and len(children) > max(1, len(best)):
                best = [f"{path}.{name}" if path else name for name, _ in children]
    return best
