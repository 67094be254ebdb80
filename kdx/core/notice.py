"""One-line notices to the user: what is left out, replaced or ignored."""

import sys

_said: set[str] = set()


def notice(text: str) -> None:
    """Print a line to stderr, once in a process: a dry run builds the same parts as the run after it.

    Example:
        >>> notice("the student has no 'final'; 'last' takes its place")
    """
    if text not in _said:
        _said.add(text)
        print(f"kdx: {text}", file=sys.stderr, flush=True)
