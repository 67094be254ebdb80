"""Errors that a user can fix, each reported in one line."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from unicodedata import category

SHOWN = 150  # most characters of the names that a message lists
LONGEST = 290  # most characters of a message
CONTROLS = ("Cc", "Cf", "Cs", "Zl", "Zp")  # control and format characters, surrogates, separators of lines


class UserError(Exception):
    """A mistake outside the program; the message names it and says what would be right."""


class StoppedError(UserError):
    """A run was stopped on purpose; the same command continues it."""


class DamagedError(UserError):
    """A file of a run cannot be used; the message begins with its path."""


def reason(error: BaseException) -> str:
    """An error in one line; an error of the operating system begins with its file.

    Example:
        >>> reason(FileNotFoundError(2, "No such file or directory", "net.pt"))
        'net.pt: No such file or directory'
        >>> reason(KeyError("seed"))
        "KeyError: 'seed'"
    """
    if isinstance(error, OSError) and error.strerror:
        files = [str(name) for name in (error.filename, error.filename2) if name is not None]
        return one_line(": ".join([" -> ".join(files), error.strerror] if files else [error.strerror]))
    if isinstance(error, UserError):
        return one_line(str(error))
    return one_line(f"{type(error).__name__}: {error}".rstrip(": "))


def one_line(text: str) -> str:
    """Text with its line breaks and indentation as single spaces.

    Example:
        >>> one_line("first\\n    second")
        'first second'
    """
    return " ".join(text.split())


def printable(text: str) -> str:
    """Text without control characters, which a terminal would obey; line breaks and tabs stay.

    Texts from files, such as names of runs and messages of failed runs, pass through here before they are printed.

    Example:
        >>> printable("a\\x1b[31mb")
        'a\\\\x1b[31mb'
    """
    return "".join(c if c in "\n\t" or category(c) not in CONTROLS else _escaped(c) for c in text)


def shown(text: str, limit: int = 80) -> str:
    """A user's text in a message: control characters and line breaks escaped, cut to a number of characters.

    Example:
        >>> shown("a\\nb"), shown("x" * 100, limit=5)
        ('a\\\\nb', 'xxxx…')
    """
    text = text if len(text) <= limit else f"{text[: limit - 1]}…"
    return printable(text.replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r"))


def closest(word: str, known: Iterable[str]) -> str | None:
    """The known word that is closest to another, whatever its case; None if none is close.

    Example:
        >>> closest("KD", ["kd", "dkd"])
        'kd'
    """
    by_lower = {name.lower(): name for name in known}
    close = get_close_matches(word.lower()[:100], sorted(by_lower), n=1, cutoff=0.6)
    return by_lower[close[0]] if close else None


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


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
    if close := closest(word, names):
        return f"; did you mean '{close}'?"
    return f"; known: {some(names)}" if names else ""


def some(names: Sequence[str]) -> str:
    """Names separated by commas, as many as a message holds, and the number of the others.

    Example:
        >>> some(["a", "b"])
        'a, b'
        >>> some([f"{n:0100}" for n in range(9)]).endswith(" and 8 more")
        True
    """
    count, length = 0, 0
    while count < len(names) and (not count or length + len(names[count]) + 2 <= SHOWN):
        length += len(names[count]) + 2
        count += 1
    return ", ".join(names[:count]) + (f" and {len(names) - count} more" if count < len(names) else "")
