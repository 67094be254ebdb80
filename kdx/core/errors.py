"""Errors that a user can fix, each reported in one line."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

SHOWN = 60  # most names that a message lists


class UserError(Exception):
    """A mistake outside the program; the message names it and says what would be right."""


class StoppedError(UserError):
    """A run was stopped on purpose; the same command continues it."""


def listed(words: Sequence[str]) -> str:
    """Words as a list in a sentence.

    Example:
        >>> listed(["CrossEntropy", "KD", "CRD"])
        'CrossEntropy, KD and CRD'
    """
    return " and ".join(part for part in (", ".join(words[:-1]), *words[-1:]) if part)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """ "; did you mean 'x'?" for the closest known word, else the list of known words.

    Args:
        word: An unknown word.
        known: The known words; empty gives "".

    Example:
        >>> did_you_mean("temprature", ["temperature", "weight"])
        "; did you mean 'temperature'?"
        >>> did_you_mean("x", ["temperature", "weight"])
        '; known: temperature, weight'
    """
    names = sorted(known)
    close = get_close_matches(word, names, n=1, cutoff=0.6)
    if close:
        return f"; did you mean '{close[0]}'?"
    shown = ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
    return f"; known: {shown}" if names else ""
