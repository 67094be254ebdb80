"""Lines to the user on standard error: what is left out, replaced or ignored, and why a command ends."""

import sys
from collections.abc import Iterable
from typing import NoReturn

from kdx.core.errors import printable, reason

_said: set[str] = set()


def say(text: str) -> None:
    """Print a line to standard error; every line of the program to the user passes here.

    Example:
        >>> say("the runs stay in outputs/verify")
    """
    print(printable(f"kdx: {text}"), file=sys.stderr, flush=True)


def notice(text: str) -> None:
    """`say`, once in a process: a dry run builds the same parts as the run after it.

    Example:
        >>> notice("the student has no 'final'; 'last' takes its place")
    """
    if text not in _said:
        _said.add(text)
        say(text)


def say_error(error: Exception) -> None:
    """Print an error, a line for each of its problems; one of the operating system begins with its file.

    Example:
        >>> say_error(FileNotFoundError(2, "No such file or directory", "net.pt"))
    """
    for line in [reason(error)] if isinstance(error, OSError) else str(error).splitlines():
        say(line)


def stop(code: int, lines: Iterable[str]) -> NoReturn:
    """Print lines and end the command with an exit code.

    Example:
        >>> stop(2, ["unknown command 'trian'; did you mean 'train'?"])
        Traceback (most recent call last):
        SystemExit: 2
    """
    for line in lines:
        say(line)
    sys.exit(code)


def fail(code: int, error: Exception) -> NoReturn:
    """Print an error as `say_error` does and end the command with an exit code.

    Example:
        >>> fail(1, FileNotFoundError(2, "No such file or directory", "net.pt"))
        Traceback (most recent call last):
        SystemExit: 1
    """
    say_error(error)
    sys.exit(code)
