"""Checks a composed config against the signatures of its targets, before anything loads.

The signature is the schema: parameter names are the keys, annotations are the types and ranges.
"""

import dataclasses
import importlib
import inspect
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Annotated, Any

from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError

from kdx.config.aliases import current_target
from kdx.config.compose import Config, ConfigError
from kdx.config.schema import Given, RunConfig
from kdx.core.errors import did_you_mean, shown, some

Problem = tuple[str, str]  # path, sentence


def validate(config: Config, interpolated: frozenset[str]) -> None:
    """Raise ConfigError with a line for every unknown key, missing key and wrong value.

    Args:
        config: Resolved.
        interpolated: Paths whose value is interpolated; an error is reported once, at the path of its origin.
    """
    wrong = list(_check(config, RunConfig, ""))
    # report them if there are no others, as when a network does not accept a fact of the data set
    problems = [text for path, text in wrong if path not in interpolated] or [text for _, text in wrong]
    if problems:
        raise ConfigError(problems)


def check(node: Config, path: str) -> list[str]:
    """A line for each error of one node with a `_target_`."""
    return [text for _, text in _check(node, Annotated[Any, Given()], path)]


def locate(target: str) -> Any:
    """The class or function of a `_target_`. Raises ValueError if there is none."""
    module, _, name = target.rpartition(".")
    if not module or not name or module.startswith("."):
        raise ValueError(
            f"must be the full name of a class or function, such as kdx.losses.logits.kd.KD; found '{shown(target)}'"
        )
    if (renamed := current_target(target)) != target:
        raise ValueError(f"'{target}' was renamed; write {renamed}")
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ValueError(f"there is no module '{error.name}'") from None
    if not callable(getattr(found, name, None)):
        public = [n for n, v in vars(found).items() if callable(v) and not n.startswith("_")]
        raise ValueError(f"the module '{module}' has no '{name}'{did_you_mean(name, public)}")
    return getattr(found, name)


def _check(value: Any, annotation: Any, path: str) -> Iterator[Problem]:
    whole = annotation
    annotation, given = _unwrap(annotation, value)
    if isinstance(value, Mapping) and "_target_" in value:
        problems = [*_check_target(value, path, given)]
        yield from problems or _check_kind(value, whole, path)
    elif given is not None:
        owner = path.removesuffix(".net")
        chosen = f"; a network is chosen with {owner}={value}" if owner != path and isinstance(value, str) else ""
        yield path, f"{path}: must be a node with a _target_, found {_show(value)}{chosen}"
    elif dataclasses.is_dataclass(annotation):
        if not isinstance(value, Mapping):
            keys = ", ".join(f.name for f in dataclasses.fields(annotation))
            yield path, f"{path}: must have the keys {keys}, found {_show(value)}"
            return
        hints = typing.get_type_hints(annotation, include_extras=True)
        optional = {f.name for f in dataclasses.fields(annotation) if _has_default(f)}
        yield from _check_keys(value, hints, set(hints) - optional, path)
    elif isinstance(value, Mapping) and _maps(annotation):
        _, of = typing.get_args(annotation)
        for key, item in value.items():
            yield from _check(item, of, _join(path, key))
    elif isinstance(value, list) and any(isinstance(v, Mapping) for v in value):
        for index, item in enumerate(value):
            yield from _check(item, Any, f"{path}[{index}]")
    else:
        yield from _check_value(value, annotation, path)


def _unwrap(annotation: Any, value: Any) -> tuple[Any, Given | None]:
    """The annotation without its optional part, and its `Given` mark if it has one."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        parts = [a for a in typing.get_args(annotation) if a is not type(None)]
        structured = [
            a for a in parts if dataclasses.is_dataclass(typing.get_args(a)[-1] if _maps(a) else a) or _mark(a)
        ]
        # beside plain types, such as a number, the structure is only one of the forms
        if structured and value is not None and (isinstance(value, Mapping) or len(structured) == len(parts)):
            annotation = structured[0]
        elif isinstance(value, Mapping) and "_target_" not in value:
            annotation = next((a for a in parts if _maps(a)), annotation)
    return annotation, _mark(annotation)


def _has_default(of: dataclasses.Field[Any]) -> bool:
    return of.default is not dataclasses.MISSING or of.default_factory is not dataclasses.MISSING


def _maps(annotation: Any) -> bool:
    return typing.get_origin(annotation) in (dict, Mapping)


def _mark(annotation: Any) -> Given | None:
    if typing.get_origin(annotation) is Annotated:
        return next((m for m in annotation.__metadata__ if isinstance(m, Given)), None)
    return None


def _check_target(node: Mapping[str, Any], path: str, given: Given | None) -> Iterator[Problem]:
    try:
        target = locate(str(node["_target_"]))
    except ValueError as error:
        yield path, f"{_join(path, '_target_')}: {error}"
        return
    added = given.names if given else frozenset()
    hints, required = signature(target)
    values = {k: v for k, v in node.items() if k not in ("_target_", "_convert_", "_partial_")}
    hints = {name: hint for name, hint in hints.items() if name not in added}
    yield from _check_keys(values, hints, required - added, path)


def _check_kind(node: Mapping[str, Any], annotation: Any, path: str) -> Iterator[Problem]:
    """An error if a node of a class stands where a plain value belongs, such as a schedule in place of a number."""
    target = locate(str(node["_target_"]))
    if not isinstance(target, type) or node.get("_partial_") is True:
        return
    kinds = _kinds(annotation)
    if kinds and all(kind in WORDS for kind in kinds):
        wanted = " or ".join(dict.fromkeys(WORDS[kind] for kind in kinds))
        yield path, f"{path}: must be {wanted}, found a {target.__name__}"


def _kinds(annotation: Any) -> list[Any]:
    """The types that an annotation allows, without their ranges."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return _kinds(inner[0])
    if origin in (typing.Union, types.UnionType):
        return [kind for part in inner for kind in _kinds(part)]
    if origin is typing.Literal:
        return [type(value) for value in inner]
    return [origin or annotation]


def _check_keys(
    values: Mapping[Any, Any], hints: Mapping[str, Any], required: set[str], path: str
) -> Iterator[Problem]:
    for key, value in values.items():
        if key not in hints:
            yield _join(path, key), f"unknown key '{shown(_join(path, key))}'{did_you_mean(str(key), hints)}"
        else:
            yield from _check(value, hints[key], _join(path, key))
    for key in sorted(required - values.keys()):
        yield path, f"missing key '{_join(path, key)}'"


@cache
def signature(target: Any) -> tuple[dict[str, Any], set[str]]:
    """Annotations of a target's parameters by name, and the names of required parameters."""
    parameters = [p for p in inspect.signature(target).parameters.values() if p.kind not in (p.VAR_POSITIONAL,)]
    if isinstance(target, type) and not dataclasses.is_dataclass(target):
        hints = typing.get_type_hints(target.__init__, include_extras=True)
    else:
        hints = typing.get_type_hints(target, include_extras=True)
    names = {p.name: hints.get(p.name, Any) for p in parameters if p.kind != p.VAR_KEYWORD}
    required = {p.name for p in parameters if p.default is p.empty and p.kind != p.VAR_KEYWORD}
    for p in parameters:
        # `**own: Unpack[Keys]` accepts the keys of a TypedDict
        if p.kind == p.VAR_KEYWORD and typing.get_origin(hints.get(p.name)) is typing.Unpack:
            (keys,) = typing.get_args(hints[p.name])
            names |= typing.get_type_hints(keys, include_extras=True)
            required |= keys.__required_keys__
    return names, required


@cache
def _adapter(annotation: Any) -> TypeAdapter[Any] | None:
    try:
        return TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True, allow_inf_nan=False))
    except PydanticUserError:  # a dataclass has its own config
        return TypeAdapter(annotation)


def _check_value(value: Any, annotation: Any, path: str) -> Iterator[Problem]:
    if annotation is Any or (value is None and type(None) in typing.get_args(annotation)):
        return
    if typing.get_origin(annotation) in (tuple, Sequence) and isinstance(value, list):
        # YAML has no tuples
        value = tuple(value) if typing.get_origin(annotation) is tuple else value
    adapter = _adapter(annotation)
    assert adapter is not None
    try:
        adapter.validate_python(value, strict=True)
    except ValidationError as error:
        # skip the alternatives of a union that are classes, such as schedules: their errors do not help
        said = [e for e in error.errors() if e["type"] != "is_instance_of"] or error.errors()
        first = said[0]
        where = "".join(f"[{p}]" for p in first["loc"] if isinstance(p, int))
        optional = not where and type(None) in typing.get_args(annotation)
        yield path, f"{path}{where}: {_rule(first)}{' or null' if optional else ''}, found {_show(first['input'])}"


# messages for pydantic's kinds of errors, in YAML's terms
RULES = {
    "greater_than": "must be greater than {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than": "must be less than {lt:g}",
    "less_than_equal": "must be at most {le:g}",
    "literal_error": "must be {expected}",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "string_type": "must be text",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "dict_type": "must be keys with values",
    "mapping_type": "must be keys with values",
}
WORDS = {float: "a number", int: "a whole number", bool: "true or false", str: "text", type(None): "null"}
CONTAINERS = {"Sequence": "must be a list", "Mapping": "must be keys with values"}


def _rule(error: Any) -> str:
    kind, context = error["type"], error.get("ctx", {})
    if kind == "is_instance_of":
        name = context["class"]
        return CONTAINERS.get(name, f"must be a node with a _target_ (a {name})")
    if kind in RULES:
        return RULES[kind].format(**context)
    return str(error["msg"][0].lower() + error["msg"][1:]).replace("input should", "must")


def _join(path: str, key: Any) -> str:
    return f"{path}.{key}" if path else str(key)


def _show(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"the keys {some(list(map(str, value)))}"
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return shown(repr(value))
