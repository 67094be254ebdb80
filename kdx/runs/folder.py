"""The files of a run's directory: their names, and what they say of the run's state.

Every other module takes the names from here. Finished runs of older versions have the same names, so a change here
makes them unreadable.
"""

from pathlib import Path

CONFIG = "config.yaml"  # the resolved config
RECORD = "metrics.jsonl"  # one line an event
STUDENT = "student.safetensors"  # the student at the last step
SELECTED_STUDENT = "student_val.safetensors"  # the student that was best on the validation split
PREDICTIONS = "predictions.safetensors"  # predictions on the test split
RESULT = "result.json"
CHECKPOINTS = "checkpoints"
ERROR = "error.txt"  # the traceback of a failed run
LOCK = ".lock"  # held by the process that trains
DONE = "DONE"  # written last


def is_done(folder: Path) -> bool:
    """Whether the run is finished."""
    return (folder / DONE).exists()


def failure(folder: Path) -> str:
    """The error message of a failed run, in one line; empty where it did not fail."""
    if is_done(folder):
        return ""
    try:
        lines = (folder / ERROR).read_text().strip().splitlines()
    except OSError:
        return ""
    if not lines:
        return "no reason given"
    # the last traceback's last line that is not indented opens the message, of which there may be several
    opening = max((i for i, line in enumerate(lines) if line[:1] not in (" ", "\t", "")), default=len(lines) - 1)
    kind, _, text = lines[opening].partition(": ")
    return text or kind
