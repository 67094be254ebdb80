"""Claims from the plain mappings of a config, with an error that names the key that is wrong."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from kdx.core.errors import UserError, did_you_mean
from kdx.tables.claims.claim import Claim, Quantity, Requirement


def read(claims: Mapping[str, object]) -> dict[str, Claim]:
    """Claims by name, from the plain mappings of a config.

    Raises:
        UserError: A key is missing, unknown or has a wrong value; the message names it.
    """
    return {k: node if isinstance(node, Claim) else _claim(f"study.claims.{k}", node) for k, node in claims.items()}


def check_places(claims: Mapping[str, Claim], rows: Iterable[str], columns: Iterable[str]) -> None:
    """Raise UserError where a claim names a row or column that a table does not have."""
    known = {"row": list(rows), "column": list(columns)}
    for name, claim in claims.items():
        for quantity in (q for need in claim.requires for q in need.quantities):
            for kind, named in (("row", quantity.rows), ("column", quantity.columns)):
                if gone := sorted(named - set(known[kind])):
                    hint = did_you_mean(gone[0], known[kind])
                    raise UserError(f"study.claims.{name}: there is no {kind} '{gone[0]}'{hint}")


def _claim(key: str, node: object) -> Claim:
    fields = _fields(key, node, ("sentence", "printed", "unit", "requires"))
    requires, printed = fields["requires"], fields["printed"]
    if not isinstance(requires, Sequence) or isinstance(requires, str) or not requires:
        raise UserError(f"{key}.requires: a list of at least one requirement is needed")
    return Claim(
        sentence=_text(f"{key}.sentence", fields["sentence"]),
        printed=None if printed is None else _text(f"{key}.printed", printed),
        unit=_text(f"{key}.unit", fields["unit"]),
        requires=[_requirement(f"{key}.requires[{i}]", need) for i, need in enumerate(requires)],
    )


def _requirement(key: str, node: object) -> Requirement:
    fields = _fields(key, node, ("left", "expect", "right", "margin"))
    left, right, where = _quantity(f"{key}.left", fields["left"]), fields["right"], f"{key}.right"
    other = _quantity(where, right) if isinstance(right, Mapping) else _number(where, right)
    with _at(key):
        return Requirement(left=left, expect=fields["expect"], right=other, margin=_number("margin", fields["margin"]))


def _quantity(key: str, node: object) -> Quantity:
    fields = _fields(key, node, ("row", "column"), ("minus", "take"))
    for part in ("row", "column"):
        of = fields[part]
        if isinstance(of, Mapping):
            fields[part] = {_text(f"{key}.{part}", name): _number(f"{key}.{part}.{name}", x) for name, x in of.items()}
        else:
            _text(f"{key}.{part}", of)
    with _at(key):
        return Quantity(**fields)


def _fields(key: str, node: object, needed: Sequence[str], more: Sequence[str] = ()) -> dict[str, Any]:
    """The keys of a mapping."""
    if not isinstance(node, Mapping):
        raise UserError(f"{key}: a mapping with {', '.join(needed)} is needed, found {node!r}")
    if lacking := [name for name in needed if name not in node]:
        raise UserError(f"{key}: {lacking[0]} is missing; needed: {', '.join(needed)}")
    if unknown := [str(name) for name in node if name not in (*needed, *more)]:
        raise UserError(f"{key}: there is no key '{unknown[0]}'{did_you_mean(unknown[0], [*needed, *more])}")
    return dict(node)


def _text(key: str, of: object) -> str:
    if not isinstance(of, str):
        raise UserError(f"{key}: a text is needed, found {of!r}")
    return of


def _number(key: str, of: object) -> float:
    if isinstance(of, bool) or not isinstance(of, int | float):
        raise UserError(f"{key}: a number is needed, found {of!r}")
    return float(of)


@contextmanager
def _at(key: str) -> Iterator[None]:
    """Put the key before the message of an error."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{key}: {error}") from None
