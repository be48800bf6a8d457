"""Frozen dataclasses as configuration: changed by `--set a.b=value`, read strictly from files, and fingerprinted."""

import dataclasses
import hashlib
import json
import typing
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from cgh_bench.core.errors import UserError, unknown

T = TypeVar("T")


def override(config: T, settings: Sequence[str]) -> T:
    """A copy of the dataclass `config` with all `a.b=value` of `settings` applied, checked against the field types.

    They are applied at once: their order does not matter, and fields that must fit each other can change together. Of
    two values for one field the last counts.

    Raises:
        UserError: not of the form `a.b=value`, no such field (nearest names are given), or a value of another type.
    """
    changes: dict[str, Any] = {}
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals or not path:
            raise UserError(f"--set {setting!r} is not of the form field=value or group.field=value")
        *groups, field = path.split(".")
        group = changes
        for name in groups:
            inner = group.get(name)
            group[name] = group = inner if isinstance(inner, dict) else {}
        group[field] = text
    if not changes:
        return config
    try:
        return typing.cast(T, _changed(config, changes, type(config), ""))
    except UserError as error:
        raise UserError(f"{' '.join(settings)}: {error}") from None


def _changed(old: Any, change: Any, kind: Any, path: str) -> Any:
    """`old`, the value at `path`, after `change`: the text of a new value, or the changes of what is in it by name."""
    parts, kinds = _parts(old)
    if isinstance(change, str) and not parts:
        return parse(change, kind)
    if isinstance(change, str):
        raise UserError(f"{path} is a group of fields; set one of them, such as {path}.{next(iter(parts))}=…")
    if not parts:
        raise UserError(f"{path} is a single value; it has no field {next(iter(change))!r}")
    for name, inner in change.items():
        if name not in parts:
            raise unknown("field", f"{path}.{name}".strip("."), [f"{path}.{part}".strip(".") for part in parts])
        parts[name] = _changed(parts[name], inner, kinds[name], f"{path}.{name}".strip("."))
    if isinstance(old, tuple):
        return tuple(parts.values())
    return dataclasses.replace(old, **{name: parts[name] for name in change})


def _parts(value: Any) -> tuple[dict[str, Any], Mapping[str, Any]]:
    """What can be set within `value` and its types: a dataclass's fields; the dataclasses of a tuple by number."""
    if dataclasses.is_dataclass(value):
        names = [field.name for field in dataclasses.fields(value) if field.init]
        return {name: getattr(value, name) for name in names}, typing.get_type_hints(type(value))
    if isinstance(value, tuple) and value and all(map(dataclasses.is_dataclass, value)):
        return {str(i): item for i, item in enumerate(value)}, {str(i): type(item) for i, item in enumerate(value)}
    return {}, {}


def parse(text: str, kind: Any) -> Any:
    """`text` as a value of the annotation `kind`; `none` is None, a tuple is `1,2` or `(1,2)` or `[1,2]`.

    Raises:
        UserError: not a value of that type.
    """
    arguments = typing.get_args(kind)
    if type(None) in arguments and text.lower() == "none":
        return None
    if typing.get_origin(kind) is not tuple:
        return _validated(kind, text, strict=False)
    parts = _separated(text)
    if len(parts) == 1 and text[:1] + text[-1:] in ("()", "[]"):
        parts = _separated(text[1:-1])
    if ... not in arguments and len(parts) != len(arguments):
        raise UserError(f"{text!r} has {len(parts)} values; expected {len(arguments)}, separated by commas")
    return _validated(kind, parts, strict=False)


def _separated(text: str) -> list[str]:
    """The parts of `text` between commas, but for commas within brackets or quotes."""
    parts, depth, quote = [""], 0, ""
    for character in text:
        if character == "," and not depth and not quote:
            parts.append("")
            continue
        if quote or character in "'\"":
            quote = "" if character == quote else quote or character
        else:
            depth += (character in "([{") - (character in ")]}")
        parts[-1] += character
    return [part.strip() for part in parts if part.strip()]


def read(kind: type[T], document: Any) -> T:
    """The JSON or TOML values of `document` as a `kind`, say a dataclass: every field there, known and of its type.

    Raises:
        UserError: it is not; one line with the field and its value, or the nearest known field.
    """
    return typing.cast(T, _validated(kind, document, strict=True))


def _validated(kind: Any, value: Any, strict: bool) -> Any:
    """`value` as a `kind`: JSON values, read strictly, or texts, converted where that is unambiguous."""
    adapter = _adapter(kind, strict)
    try:
        if strict:  # as JSON, in which a tuple is a list
            return adapter.validate_json(json.dumps([value], allow_nan=False))[0]
        return adapter.validate_python((value,))[0]
    except ValidationError as error:
        raise UserError(_reason(error, kind)) from None
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError(str(error)) from None


@cache
def _adapter(kind: Any, strict: bool) -> TypeAdapter[Any]:
    # In a tuple: pydantic takes a configuration for that and hands it down, but takes none for a dataclass.
    return TypeAdapter(tuple[kind], config=ConfigDict(strict=strict, extra="forbid", allow_inf_nan=False))


def _reason(error: ValidationError, kind: Any) -> str:
    """What is wrong in one line; a misspelt field before the one that is missing for it."""
    errors = error.errors(include_url=False)
    first = min(errors, key=lambda each: each["type"] != "unexpected_keyword_argument")
    place = ".".join(map(str, first["loc"][1:]))
    match first["type"]:
        case "unexpected_keyword_argument":
            return str(unknown("field", str(first["loc"][-1]), _fields(kind, first["loc"][1:-1])))
        case "missing":
            return f"{place} is missing"
        case "value_error":
            return str(first["ctx"]["error"])
        case "json_invalid":
            return first["msg"]
    wanted = first["msg"].partition(", unable")[0].removeprefix("Input ")
    return f"{place} = {first['input']!r:.80} {wanted}".removeprefix(" = ")


def _fields(kind: Any, place: Sequence[int | str]) -> list[str]:
    """The fields of the dataclass at `place` within a `kind`."""
    for step in place:
        items = [each for each in typing.get_args(kind) if each is not ...]
        kind = items[-1] if items else typing.get_type_hints(kind)[str(step)]
    return [field.name for field in dataclasses.fields(kind)]


def later(default: T) -> T:
    """The default of a field that was added when results had been recorded: at this default, their ids still hold."""
    field: T = dataclasses.field(default=default, metadata={"later": True})
    return field


def counts(field: dataclasses.Field[Any], value: Any) -> bool:
    """Whether the field's value is part of ids: all but those made by `later` that have their default."""
    return not field.metadata.get("later") or value != field.default


def plain(config: Any) -> Any:
    """`config` as JSON values: dataclasses as dicts, tuples as lists, paths as strings.

    The properties that a dataclass names in `DERIVED` are part of it: values found out when asked for, as the hash of a
    file is.
    """
    return _plain(config, lambda field, value: True)


def identity(config: Any) -> Any:
    """`plain(config)` without the fields made by `later` that have their default: what ids are made of."""
    return _plain(config, counts)


def _plain(config: Any, keep: Callable[[dataclasses.Field[Any], Any], bool]) -> Any:
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        fields = [(field, getattr(config, field.name)) for field in dataclasses.fields(config)]
        values = {field.name: _plain(value, keep) for field, value in fields if keep(field, value)}
        values |= {name: getattr(config, name) for name in getattr(config, "DERIVED", ())}
        return {"type": getattr(config, "RECORDED_AS", "") or type(config).__name__, **values}
    if isinstance(config, dict):
        return {str(key): _plain(value, keep) for key, value in config.items()}
    if isinstance(config, list | tuple):
        return [_plain(value, keep) for value in config]
    return str(config) if isinstance(config, Path) else config


def fingerprint(config: Any) -> str:
    """Sixteen hex digits that change whenever any value of `config` (anything `plain` accepts) changes."""
    text = json.dumps(identity(config), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
