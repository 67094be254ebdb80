"""Command lines of places and settings, `PLACE KEY=VALUE`, without Hydra."""

from collections.abc import Sequence
from pathlib import Path

from kdx.core.errors import UserError, did_you_mean


def places_and_settings(arguments: Sequence[str], keys: Sequence[str], hint: str) -> tuple[list[str], dict[str, str]]:
    """The places and the settings of a command line; a file that exists is a place, also with "=" in its name.

    Args:
        arguments: The words.
        keys: Known settings.
        hint: Ends the message about an option.

    Raises:
        UserError: An option (a word with a dash), or an unknown setting.

    Example:
        >>> places_and_settings(["outputs", "title=Runs"], ["to", "title"], "write settings without dashes")
        (['outputs'], {'title': 'Runs'})
    """
    places, settings = [], {}
    for argument in arguments:
        key, sign, value = argument.partition("=")
        if argument.startswith("-"):
            raise UserError(f"unknown option '{argument}'; {hint}")
        if not sign or Path(argument).exists():
            places.append(argument)
        elif key not in keys:
            raise UserError(f"unknown setting '{key}'{did_you_mean(key, keys)}")
        else:
            settings[key] = value
    return places, settings
