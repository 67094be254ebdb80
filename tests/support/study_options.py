"""Options of `kdx study` as a command without any of them gives them, one by one."""

from typing import Any

from kdx.studies.options import Options

PLAIN: dict[str, Any] = {
    "fresh": False,
    "reuse": False,
    "scale": None,
    "only": None,
    "jobs": 1,
    "fused": False,
    "fused_limit": 1,
    "retry": None,
    "rows": None,
    "columns": None,
    "seeds": None,
    "overrides": [],
}


def study_options(**changed: Any) -> Options:
    """Options that differ from the plain ones in the given values."""
    return Options(**PLAIN | changed)
