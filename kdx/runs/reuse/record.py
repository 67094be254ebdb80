"""The record of a run's data and code beside its result, and the check of both before the result is used again.

The record is no part of a run's identity: a result stays valid where its data are copied or deleted. Written when an
attempt starts, it is compared when a later command asks for the same run.
"""

import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kdx.config.identity import fingerprint, left_out
from kdx.core.errors import UserError
from kdx.core.notice import notice, say
from kdx.data.dataset import Dataset
from kdx.data.sources.walk import files_below
from kdx.runs.build import make
from kdx.runs.folder import CHECKPOINTS, SOURCES, is_done
from kdx.runs.results import Result, finished, write_json
from kdx.runs.reuse import files, modules

Facts = dict[str, Any]
Known = dict[str, Facts | None]  # fingerprint of a data set's files by its node; None where it lists no files
DECIDE = "fresh=true trains again, reuse=true keeps"


def sources(config: Mapping[str, Any], known: Known | None = None) -> Facts:
    """Fingerprint of the data files, of other files, and of the user's modules that a config names.

    Args:
        config: Prepared.
        known: Fingerprints of data sets that runs share; is filled.
    """
    found = {key: facts for key, facts in _fingerprints(config, {} if known is None else known) if facts}
    return {"files": found, "modules": _modules(config)}


def parts(node: Mapping[str, Any]) -> Facts:
    """Like `sources` for a part of a config; empty if it names neither files nor modules of the user."""
    facts = {"files": {key: files.fingerprint(paths) for key, paths in _given(node)}, "modules": _modules(node)}
    return {key: value for key, value in facts.items() if value}


def change(old: Facts, new: Facts) -> str | None:
    """The first difference between two records, in words; None if there is none that can be seen."""
    for key in sorted(old["files"].keys() & new["files"].keys()):
        if told := files.change(old["files"][key], new["files"][key]):
            return f"{key}: {told}"
    return modules.change(old["modules"], new["modules"])


def recorded(folder: Path) -> Facts | None:
    """The record in a folder; None if an older version made it, or the file is damaged."""
    try:
        facts = json.loads((folder / SOURCES).read_text())
        return facts if facts.pop("checksum") == fingerprint(facts) else None
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        return None


def reused(config: Mapping[str, Any], folder: Path) -> Result | None:
    """The result of a finished run; says when and by which commit it was made. None if the run is not finished.

    Raises:
        UserError: Its data or code changed since, and `reuse` is false.
    """
    found = checked(config, folder, {})
    if found is None:
        return None
    result, note = found
    notice(f"finished {when(result)} by {commit(result)}: {folder}{note}")
    return result


def checked(config: Mapping[str, Any], folder: Path, known: Known) -> tuple[Result, str] | None:
    """Like `reused`, in silence: the result and a note on what was not compared. `known` is that of `sources`."""
    result = finished(folder)
    if result is None:
        return None
    return result, _compared(config, folder, sources(config, known), f"{folder} was trained on")


def when(result: Result) -> str:
    """The time at which a run finished."""
    return str(result.data.get("finished", "at an unknown time"))


def commit(result: Result) -> str:
    """The commit that trained a run, in words."""
    code = result.data.get("code") or {}
    if not code.get("commit"):
        return "an unknown commit"
    return f"commit {code['commit'][:9]}{' with local changes' if code.get('dirty') else ''}"


def begin(config: Mapping[str, Any], folder: Path, now: Facts) -> Facts:
    """The record of an attempt that starts; what has been trained must be of the same data and code.

    Raises:
        UserError: Data or code changed since the run started, and neither `fresh` nor `reuse` is true.
    """
    if config["fresh"] or not _has_checkpoint(folder):
        return now
    if note := _compared(config, folder, now, f"{folder} was started on"):
        say(f"{folder} continues{note}")
    before = recorded(folder)
    earlier = [] if before is None else before.get("earlier", [])
    if before is not None and (told := change(before, now)) is not None:
        earlier = [*earlier, {"until": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "change": told}]
    return {**now, "earlier": earlier} if earlier else now


def write(folder: Path, facts: Facts) -> None:
    """Write the record of a run."""
    write_json(folder / SOURCES, {**facts, "checksum": fingerprint(facts)})


def renewed(config: Mapping[str, Any], folder: Path) -> str | None:
    """The change since a finished run was made, in words; None if there is none or the run is not finished."""
    before = recorded(folder) if is_done(folder) else None
    return None if before is None else change(before, sources(config))


def _compared(config: Mapping[str, Any], folder: Path, now: Facts, what: str) -> str:
    """A note for the message about a run that is used. Raises UserError for a change without `reuse`."""
    before = recorded(folder)
    if before is None:
        return "; no record of its data and code, so they were not compared"
    if told := change(before, now):
        if not config["reuse"]:
            raise UserError(f"{what} other data or code: {told}; {DECIDE} it")
        return f"; reuse=true, although {told}"
    if gone := sorted(before["files"].keys() - now["files"].keys()):
        return f"; not compared, since its files are not here: {gone[0]}"
    return ""


def _has_checkpoint(folder: Path) -> bool:
    return any((folder / CHECKPOINTS).glob("*.pt"))


def _fingerprints(config: Mapping[str, Any], known: Known) -> Iterator[tuple[str, Facts]]:
    transfer = config["transfer"]
    unlabelled = transfer["unlabelled"]
    nodes = {"dataset": config["dataset"]}
    if isinstance(unlabelled, Mapping) and isinstance(unlabelled.get("dataset"), Mapping):
        nodes["transfer.unlabelled.dataset"] = unlabelled["dataset"]
    listed = []
    for key, node in nodes.items():
        shared = json.dumps(node, sort_keys=True)
        if shared not in known:
            data = make(node)
            lists = isinstance(data, Dataset) and type(data).files is not Dataset.files
            known[shared] = files.fingerprint(data.files()) if lists else None
        # the names that a data set's keys give are relative to its root
        if (facts := known[shared]) is not None:
            listed.append(f"{key}.")
            yield key, facts
    for key, paths in _given(config):
        if not key.startswith(tuple(listed)):
            yield key, files.fingerprint(paths)


def _modules(node: Mapping[str, Any]) -> dict[str, str]:
    return modules.fingerprints({str(value) for key, value in _values(node) if key.endswith("_target_")})


def _given(config: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Files and folders that values of a config name, such as weights behind a path."""
    for key, value in _values(config):
        if isinstance(value, str) and not left_out(key) and not key.endswith("_target_"):
            path = os.path.expanduser(value)
            # a bare word is the name of something else, though there may be such a folder
            named = os.path.isfile(path) if os.sep not in path else os.path.exists(path)
            if named:
                yield key, files_below(path)


def _values(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Values of a config by dotted path, also those in lists."""
    items = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, list | tuple) else None
    if items is None:
        yield prefix, node
    else:
        for key, value in items:
            yield from _values(value, f"{prefix}.{key}" if prefix else str(key))
