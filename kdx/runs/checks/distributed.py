"""Checks whether several processes can train a run together."""

from collections.abc import Iterator

from kdx.config.schema import RunConfig, Teacher
from kdx.core.distributed import world_size
from kdx.core.method import Method
from kdx.core.spec import DataSpec


def indivisible(config: RunConfig, method: Method, spec: DataSpec) -> Iterator[str]:
    """Reasons why processes cannot split each batch among themselves; none for one process.

    Args:
        config: Prepared.
        method: The method with its networks.
        spec: Facts of the training data.
    """
    if world_size() == 1:
        return
    if (part := method.relating()) is not None:
        yield (
            f"method={config.choices['method']} in {world_size()} processes: {part} relates the examples of a batch "
            "to each other, or stores one entry per example, and a process sees only its share; train in one process"
        )
    if spec.has_labelled and spec.has_unlabelled:
        yield (
            f"{world_size()} processes would weight labelled examples differently, since cross-entropy averages over "
            "the labelled examples of each share; train in one process"
        )
    if config.teacher is not None and "int8" in _optimized(config.teacher):
        yield (
            f"teacher.optimize=int8 takes its ranges from whole batches, and each of {world_size()} processes has a "
            "share; choose folded or bf16"
        )


def unsharded(config: RunConfig) -> Iterator[str]:
    """Reasons why a teacher's parameters cannot be sharded among processes as configured."""
    teacher = config.teacher
    if teacher is None or not teacher.shard:
        return
    if world_size() == 1:
        yield (
            "teacher.shard=true divides a teacher among processes, and there is one; start more with torchrun "
            "--nproc-per-node=N -m kdx.train, or set teacher.shard=false"
        )
    if teacher.memo or teacher.members or teacher.seeds or teacher.optimize != "exact":
        yield (
            "teacher.shard=true supports a single, exact teacher without a memo; leave out teacher.memo, "
            "teacher.optimize, teacher.seeds and teacher.members"
        )


def _optimized(teacher: Teacher) -> set[str]:
    return {own.optimize for own in [teacher, *(teacher.members or {}).values()]}
