"""Configuration is frozen dataclasses; this overrides their fields by `--set a.b=value` and fingerprints them."""

import dataclasses
import hashlib
import json
import math
import re
import types
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from cgh_bench.core.errors import UserError, unknown

C = TypeVar("C")
COMMA = r",(?![^\[]*\])"
"""Between values, not within a list that is one of them."""
T = TypeVar("T")


def override(config: C, settings: Sequence[str]) -> C:
    """A copy of the dataclass `config` with all `a.b=value` of `settings` applied at once, checked against the types.

    At once: the order does not matter, and fields that must fit each other can be changed together.

    Raises:
        UserError: not of the form `a.b=value`, no such field (nearest names are given), or a value of another type.
    """
    changes = []
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals or not path:
            raise UserError(f"--set {setting!r} is not of the form field=value or group.field=value")
        changes.append(_Change(tuple(path.split(".")), text, setting))
    return typing.cast(C, _apply(config, changes)) if changes else config


@dataclasses.dataclass(frozen=True)
class _Change:
    path: tuple[str, ...]
    text: str
    setting: str

    def below(self) -> "_Change":
        return dataclasses.replace(self, path=self.path[1:])


def _apply(config: Any, changes: Sequence[_Change]) -> Any:
    """`config`, a dataclass or a tuple of them, with its changed parts replaced, each once."""
    if isinstance(config, tuple):
        return _apply_to_items(config, changes)
    hints = typing.get_type_hints(type(config))
    fields = {field.name: hints[field.name] for field in dataclasses.fields(config) if field.init}
    values = {}
    for head, group in _grouped(changes).items():
        if head not in fields:
            raise unknown(f"field in --set {group[0].setting}:", head, fields)
        values[head] = _value(getattr(config, head), fields[head], group)
    try:
        return dataclasses.replace(config, **values)
    except UserError as error:
        raise UserError(f"--set {', '.join(change.setting for change in changes)}: {error}") from None


def _value(old: Any, kind: Any, changes: Sequence[_Change]) -> Any:
    """What becomes of one field: read from the last text given for it, or changed within."""
    whole = [change for change in changes if len(change.path) == 1]
    if whole:
        try:
            return parse(whole[-1].text, kind)
        except ValueError as error:
            raise UserError(f"--set {whole[-1].setting}: {error}") from None
    first, inner = changes[0], [change.below() for change in changes]
    items = isinstance(old, tuple) and all(map(dataclasses.is_dataclass, old)) and all(c.path[1:] for c in inner)
    if not dataclasses.is_dataclass(old) and not items:
        raise UserError(
            f"--set {first.setting}: {first.path[0]!r} is a single value, it has no field {first.path[1]!r}"
        )
    return _apply(old, inner)


def _apply_to_items(items: tuple[Any, ...], changes: Sequence[_Change]) -> tuple[Any, ...]:
    """Dataclasses in a tuple go by their number: `views.augments.1.blur=0.2`."""
    changed = list(items)
    for number, group in _grouped(changes).items():
        if number not in map(str, range(len(items))):
            raise UserError(f"--set {group[0].setting}: {number!r} is not one of the numbers 0 to {len(items) - 1}")
        changed[int(number)] = _apply(items[int(number)], [change.below() for change in group])
    return tuple(changed)


def _grouped(changes: Sequence[_Change]) -> dict[str, list[_Change]]:
    groups: dict[str, list[_Change]] = {}
    for change in changes:
        groups.setdefault(change.path[0], []).append(change)
    return groups


def parse(text: str, kind: Any) -> Any:
    """`text` read as a value of the annotation `kind`; tuples are comma-separated, `none` is None.

    Raises:
        ValueError: the text is no value of that type; the message says what is accepted.
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        if type(None) in arguments and text.lower() == "none":
            return None
        return _first_that_fits(text, [a for a in arguments if a is not type(None)])
    if origin is Literal:
        if text not in {str(a) for a in arguments}:
            raise ValueError(f"{text!r} is not one of {', '.join(map(str, arguments))}")
        return next(a for a in arguments if str(a) == text)
    if origin is tuple:
        parts = [part.strip() for part in re.split(COMMA, text.strip("()")) if part.strip()]
        kinds = [arguments[0]] * len(parts) if arguments[1:] == (...,) else list(arguments)
        if len(kinds) != len(parts):
            raise ValueError(f"{text!r} has {len(parts)} values, {len(kinds)} are needed (comma-separated)")
        return tuple(parse(part, kind) for part, kind in zip(parts, kinds, strict=True))
    return _parse_scalar(text, kind)


def _first_that_fits(text: str, kinds: list[Any]) -> Any:
    errors = []
    for kind in kinds:
        try:
            return parse(text, kind)
        except ValueError as error:
            errors.append(str(error))
    raise ValueError("; ".join(errors))


def _parse_scalar(text: str, kind: Any) -> Any:
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise ValueError(f"{text!r} is not true or false")
        return text.lower() == "true"
    if kind in (int, float):
        name = {int: "a whole number", float: "a finite number"}[kind]
        try:
            number = kind(text)
        except ValueError:
            raise ValueError(f"{text!r} is not {name}") from None
        if kind is float and not math.isfinite(number):
            raise ValueError(f"{text!r} is not {name}")
        return number
    if kind in (str, Path):
        return kind(text)
    raise ValueError(f"a field of type {kind} cannot be set on the command line")


def later(default: T) -> T:
    """The default of a field that was added after configurations had been recorded.

    At this default a configuration means what it meant before the field existed, and has the same `identity`.
    """
    field: T = dataclasses.field(default=default, metadata={"later": True})
    return field


def plain(config: Any) -> Any:
    """`config` as JSON values: dataclasses as dicts, tuples as lists, paths as strings."""
    return _plain(config, lambda field, value: True)


def identity(config: Any) -> Any:
    """`plain(config)` without the fields made by `later` that have their default: what records are compared by."""
    return _plain(config, lambda field, value: not field.metadata.get("later") or value != field.default)


def _plain(config: Any, keep: Callable[[dataclasses.Field[Any], Any], bool]) -> Any:
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        fields = [(field, getattr(config, field.name)) for field in dataclasses.fields(config)]
        values = {field.name: _plain(value, keep) for field, value in fields if keep(field, value)}
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
