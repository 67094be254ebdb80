"""Old names of classes and functions that configs refer to by `_target_`, so that finished runs stay readable.

`MOVED` and `MOVED_NAMES` hold the renames before names were frozen; they apply where the config of a finished run is
read. `RENAMED` holds the later renames. They apply there too, and a run's identity is a hash of the frozen names, so
that a rename does not change it. A commit that renames a module or class that a config can name adds a line to
`RENAMED`.

Example:
    >>> current_target("kdx.losses.dkd.DKD")
    'kdx.losses.logits.dkd.DKD'
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

Move = tuple[str, str, str]  # old package, new package, stems of modules: "stem", or "old>new"

MOVED: Sequence[Move] = (
    (
        "kdx.studies",
        "kdx.runs",
        "run build prepare teacher members>ensemble_config memo optimize claim>lock results deliver>export provenance "
        "company>fused",
    ),
    ("kdx.studies", "kdx.runs.checks", "rehearse>dry_run recordable>cuda_graph processes>distributed"),
    ("kdx.studies", "kdx.pool", "pool task workers together>run_fused"),
    ("kdx.studies", "kdx.tables", "statistics table sheet>paper_cells render captions footnotes publish picture"),
    ("kdx.studies.report", "kdx.tables", "metrics"),
    ("kdx.studies", "kdx.studies", "board>table_runs recall>config_cache"),
    (
        "kdx.studies.report",
        "kdx.report",
        "collect curves entry figures groups knobs page payload predicted recompute write",
    ),
    ("kdx.studies", "kdx.report", "compare"),
    ("kdx.studies", "kdx.sweeps", "sweeps launcher search trial agent"),
    ("kdx.studies", "kdx.commands", "entry>study status catalogue completion show"),
    (
        "kdx.losses",
        "kdx.losses.base",
        "base>term numerics pairs requirements>checks adapters weighting layout>memory_format networks>heads "
        "enlarged>upsample",
    ),
    ("kdx.losses", "kdx.losses.wrappers", "during>staged noise logit_standardization sdd"),
    (
        "kdx.losses",
        "kdx.losses.logits",
        "binary cross_entropy ctkd dafl dist divergences dkd ensemble kd logit_mse mlkd nkd ofa pskd tfkd wsld",
    ),
    (
        "kdx.losses",
        "kdx.losses.features",
        "ab at byot catkd cwd deep_inversion fitnet fsp ft ickd input_gradient jacobian kdsvd map_mse mgd nst "
        "ofd reviewkd semckd srrl vid",
    ),
    ("kdx.losses", "kdx.losses.relations", "cc crd pkt rkd sp"),
    ("kdx.losses", "kdx.losses.online", "clilr>cl_ilr discriminator dml exchange>peer_term kdcl okddip one"),
    (
        "kdx.data",
        "kdx.data.sources",
        "cifar decode digits folder foreign>unlabelled_sources joined>concat mnist plane shard_index shards synthetic",
    ),
    ("kdx.data", "kdx.data.views", "augment crop mixing ops pixels policy"),
    ("kdx.data", "kdx.data", "shared>shared_loader"),
    (
        "kdx.models",
        "kdx.models.teachers",
        "ensemble folding frozen functions limited memo memo_table optimized sharded shared>shared_answers specialists",
    ),
    ("kdx.models", "kdx.models", "twice>double_backward joined_norms>sync_norms"),
    (
        "kdx.engine",
        "kdx.engine.optim",
        "ema graph>cuda_graph lean>fast_optim lr memory optimizer parties>multi_optimizer update",
    ),
    ("kdx.engine", "kdx.engine.record", "bar log loggers meter selection wandb_view"),
    ("kdx.evals", "kdx.evals", "asked>cached_outputs"),
    ("kdx.methods", "kdx.methods", "adversarial_training>pgd_at boundary>bss"),
)
# Classes and functions by full name, the module as it is after MOVED. The latest rename comes last.
MOVED_NAMES: Mapping[str, str] = {
    "kdx.losses.wrappers.staged.During": "kdx.losses.wrappers.staged.Staged",
    "kdx.losses.base.weighting.Dropped": "kdx.losses.base.weighting.DropMembers",
    "kdx.losses.base.weighting.OneOfThem": "kdx.losses.base.weighting.RandomMember",
    "kdx.losses.online.dml.Mutual": "kdx.losses.online.dml.MutualDivergence",
    "kdx.losses.online.okddip.GroupLed": "kdx.losses.online.okddip.PeerAttention",
    "kdx.losses.online.one.Gated": "kdx.losses.online.one.GatedEnsemble",
    "kdx.evals.classification.Classification": "kdx.evals.task_metrics.TaskMetrics",
    "kdx.methods.data_free.DataFree": "kdx.methods.generator_distill.GeneratorDistill",
}

# Full names of modules, classes or functions since the freeze: {"kdx.old.Name": "kdx.new.Name"}. The latest comes last.
RENAMED: Mapping[str, str] = {
    "kdx.studies.measurements.Predictions": "kdx.studies.measures.predictions.Predictions",
    "kdx.studies.measurements.Boundaries": "kdx.studies.measures.boundaries.Boundaries",
}


def current_target(target: str) -> str:
    """The present name of a `_target_`; unknown names are returned unchanged."""
    module, _, name = target.rpartition(".")
    found = f"{_moved_modules()[module]}.{name}" if module in _moved_modules() else target
    for table in (MOVED_NAMES, RENAMED):
        for old, new in table.items():
            found = _replaced(found, old, new)
    return found


def frozen_target(target: str) -> str:
    """The frozen name of a present `_target_`, for identities."""
    found = target
    for old, new in reversed(list(RENAMED.items())):
        found = _replaced(found, new, old)
    return found


def with_current_targets(node: Any) -> Any:
    """A config, or a part of one, with the present name in each `_target_`."""
    if isinstance(node, dict):
        return {
            key: current_target(value) if key == "_target_" and isinstance(value, str) else with_current_targets(value)
            for key, value in node.items()
        }
    return [with_current_targets(item) for item in node] if isinstance(node, list) else node


def _replaced(name: str, old: str, new: str) -> str:
    return new + name[len(old) :] if name == old or name.startswith(f"{old}.") else name


@cache
def _moved_modules() -> Mapping[str, str]:
    """New module by old module."""
    pairs = ((old, new, *stem.split(">")) for old, new, stems in MOVED for stem in stems.split())
    return {f"{old}.{stem}": f"{new}.{(renamed or [stem])[0]}" for old, new, stem, *renamed in pairs}
