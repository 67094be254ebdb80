"""Defaults that were written out before they followed the networks, so that runs keep their identities.

A term's `roles: null` reads every stage, and OFA's one exponent stands for every stage of the student. For networks of
three stages that is the list of three which was the default before, and such a run has the identity that it had. For
other networks the results differ, and so does the identity.
"""

from collections.abc import Mapping
from typing import Any

_STAGES = ["stage1", "stage2", "stage3"]
_PREACT = [f"{stage}.preact" for stage in _STAGES]
_FEATURES = "kdx.losses.features"
_REVIEW = {**{f"roles.{stage}": f"{stage}.preact" for stage in _STAGES}, "roles.pooled": "pooled"}

FORMER: Mapping[str, Mapping[str, Any]] = {
    f"{_FEATURES}.at.AT": {"roles": _STAGES},
    f"{_FEATURES}.nst.NST": {"roles": _STAGES},
    f"{_FEATURES}.vid.VID": {"roles": _STAGES},
    f"{_FEATURES}.kdsvd.KDSVD": {"roles": _STAGES},
    f"{_FEATURES}.ab.AB": {"roles": _PREACT},
    f"{_FEATURES}.ofd.OFD": {"roles": _PREACT},
    f"{_FEATURES}.fsp.FSP": {"roles": ["stage0", *_STAGES]},
    f"{_FEATURES}.reviewkd.ReviewKD": _REVIEW,
    f"{_FEATURES}.semckd.SemCKD": {"student_roles": _STAGES, "teacher_roles": _STAGES},
}
"""The former default of each term, as leaves; a key that is null now, or the keys below it."""

OFA_STAGES = "kdx.losses.logits.ofa.OFAStages"

THREE_STAGES = tuple(
    f"kdx.models.cifar.{name}"
    for name in ("resnet.ResNet", "wrn.WideResNet", "shufflenetv1.ShuffleNetV1", "shufflenetv2.ShuffleNetV2")
)


def with_former_defaults(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """The leaves of a config, with the former default in place of null where both mean the same."""
    changed = dict(leaves)
    targets = {p.removesuffix("._target_"): t for p, t in leaves.items() if p.endswith("._target_")}
    if leaves.get("student.net._target_") in THREE_STAGES:
        for key in (f"{term}.exponents" for term, target in targets.items() if target == OFA_STAGES):
            _spread(changed, key)
    wide = [term for term, target in targets.items() if isinstance(target, str) and target in FORMER]
    if not wide or not _three_stages(leaves, all_of=False):
        return changed
    for term in wide:
        former = FORMER[leaves[f"{term}._target_"]]
        # terms that pair stages read as many as the smaller network has; per side, each network's own count matters
        if "student_roles" in former and not _three_stages(leaves, all_of=True):
            continue
        for key, value in former.items():
            top = f"{term}.{key.partition('.')[0]}"
            if top in leaves and leaves[top] is None:
                changed.pop(top, None)
                changed[f"{term}.{key}"] = value
    return changed


def _spread(leaves: dict[str, Any], key: str) -> None:
    """Put a number, or a schedule, that holds for all stages below the name of each of three."""
    one = {path.removeprefix(key): leaves[path] for path in list(leaves) if path == key or path.startswith(f"{key}.")}
    if "" in one or "._target_" in one:
        for rest, value in one.items():
            del leaves[key + rest]
            leaves.update({f"{key}.{stage}{rest}": value for stage in _STAGES})


def _three_stages(leaves: Mapping[str, Any], all_of: bool) -> bool:
    """Whether a network of the run, or all of them, has three stages."""
    found = [
        value in THREE_STAGES
        for path, value in leaves.items()
        if path.endswith("net._target_") and path.startswith(("student.", "teacher.")) and ".training." not in path
    ]
    return bool(found) and (all(found) if all_of else any(found))
