"""The files of a run's directory: their names, and the state of the run that they show.

Every other module takes the names from here. Finished runs of older versions have the same names, so a change here
makes them unreadable.
"""

from pathlib import Path

CONFIG = "config.yaml"  # the resolved config
RECORD = "metrics.jsonl"  # one line per event
STUDENT = "student.safetensors"  # the student at the last step
SELECTED_STUDENT = "student_val.safetensors"  # the student that was best on the validation split
PREDICTIONS = "predictions.safetensors"  # predictions on the test split
DETECTIONS = "detections.png"  # some test images with objects and detections, where the task has boxes
RESULT = "result.json"
SOURCES = "sources.json"  # fingerprints of the data and of the user's own modules
CHECKPOINTS = "checkpoints"
ERROR = "error.txt"  # the traceback of a failed run
LOCK = ".lock"  # held by the process that trains
DONE = "DONE"  # written last


def is_done(folder: Path) -> bool:
    """Whether the run is finished."""
    return (folder / DONE).exists()


def failure(folder: Path) -> str:
    """The error message of a failed run, in one line; empty if the run did not fail."""
    if is_done(folder):
        return ""
    try:
        lines = (folder / ERROR).read_text(errors="replace").strip().splitlines()
    except OSError:
        return ""
    if not lines:
        return "no reason given"
    # the message, of one or more lines, starts at the last line of the last traceback that is not indented
    opening = max((i for i, line in enumerate(lines) if line[:1] not in (" ", "\t", "")), default=len(lines) - 1)
    kind, _, text = lines[opening].partition(": ")
    return text or kind
