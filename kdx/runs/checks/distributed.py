"""What several processes cannot train together, told before anything loads."""

from collections.abc import Iterator

from kdx.config.compose import Config
from kdx.core.distributed import size
from kdx.core.method import Method
from kdx.core.spec import DataSpec


def indivisible(config: Config, method: Method, spec: DataSpec) -> Iterator[str]:
    """Why each of several processes cannot take a share of every batch; nothing where they can, or there is one.

    Args:
        config: Prepared.
        method: Over its networks.
        spec: Facts of the training data.
    """
    if size() == 1:
        return
    if (part := method.relating()) is not None:
        yield (
            f"method={config['choices']['method']} in {size()} processes: {part} relates the examples of a batch to "
            "each other, or keeps something of each, and a process sees its share alone; train it in one process"
        )
    if spec.has_labelled and spec.has_unlabelled:
        yield (
            f"a batch of labelled and unlabelled examples is not the mean of {size()} shares, as cross-entropy counts "
            "the labelled ones; train it in one process"
        )
    if config["teacher"] is not None and "int8" in _optimized(config["teacher"]):
        yield (
            f"teacher.optimize=int8 takes its ranges from batches, of which each of {size()} processes has a share; "
            "choose folded or bf16"
        )


def unsharded(config: Config) -> Iterator[str]:
    """Why a teacher's parameters cannot be divided among processes as asked; nothing where they can."""
    teacher = config["teacher"]
    if teacher is None or not teacher["shard"]:
        return
    if size() == 1:
        yield (
            "teacher.shard=true divides a teacher among processes, and there is one; start more with torchrun "
            "--nproc-per-node=N -m kdx.train, or leave it out"
        )
    if teacher["memo"] or teacher["members"] or teacher["seeds"] or teacher["optimize"] != "exact":
        yield (
            "teacher.shard=true is for one teacher as it is; leave out teacher.memo, teacher.optimize, teacher.seeds "
            "and teacher.members"
        )


def _optimized(teacher: Config) -> set[str]:
    return {own["optimize"] for own in [teacher, *(teacher["members"] or {}).values()]}
