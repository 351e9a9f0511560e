"""The arguments of a task: from a call to a payload, and from a payload to the types that the function names."""

from __future__ import annotations

import collections.abc
import dataclasses
import datetime
import decimal
import enum
import inspect
import types
import typing
import uuid
from collections.abc import Callable, Mapping
from typing import Any

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.VAR_POSITIONAL)
_LISTS = (list, collections.abc.Sequence, collections.abc.Iterable, collections.abc.Collection)
_SETS = {set: set, frozenset: frozenset, collections.abc.Set: frozenset}
_MAPPINGS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)
_COLLECTIONS: tuple[Any, ...] = (tuple, *_LISTS, *_SETS, *_MAPPINGS)


class DoesNotFit(ValueError):
    """A payload that does not fit the arguments of its task."""


class Arguments:
    """The arguments of one function."""

    def __init__(self, function: Callable[..., object]) -> None:
        self._function = function
        self._signature = inspect.signature(function)
        self._types: dict[str, Any] | None = None
        for parameter in self._signature.parameters.values():
            if parameter.kind in _POSITIONAL:
                raise TypeError(
                    f"{function.__qualname__} cannot be a task: its argument {parameter.name!r} has no name in a "
                    "payload"
                )
        self._takes_all = any(
            parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in self._signature.parameters.values()
        )

    def payload(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the payload of a call. Raises `TypeError` as the call would."""
        payload: dict[str, Any] = {}
        for name, value in self._signature.bind(*args, **kwargs).arguments.items():
            if self._signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD:
                payload.update(value)
            else:
                payload[name] = value
        return payload

    def types(self) -> dict[str, Any]:
        """Returns the types of the arguments. Raises `TypeError` if one is unknown where the function is defined.

        Call it once the application is imported: the names of types may be defined after the function.
        """
        if self._types is None:
            try:
                self._types = typing.get_type_hints(self._function, include_extras=True)
            except (NameError, AttributeError, SyntaxError) as error:
                raise TypeError(
                    f"the types of the arguments of {self._function.__qualname__} cannot be found: {error}. A worker "
                    "needs them, so import them outside of `if TYPE_CHECKING`"
                ) from error
        return self._types

    def read(self, payload: object) -> dict[str, Any]:
        """Returns the arguments that a payload has. Members that the function does not name are left out.

        Raises `DoesNotFit` if an argument is missing or of another type.
        """
        types = self.types()
        members = {} if payload is None else payload
        if not isinstance(members, dict):
            raise DoesNotFit(f"the payload must be an object, not {_name_of(members)}")
        arguments = {}
        for name, parameter in self._signature.parameters.items():
            if name in members and parameter.kind is not inspect.Parameter.VAR_KEYWORD:
                arguments[name] = read(types.get(name, Any), members[name], name)
            elif parameter.default is parameter.empty and parameter.kind is not inspect.Parameter.VAR_KEYWORD:
                raise DoesNotFit(f"the payload lacks {name!r}")
        if self._takes_all:
            arguments.update((name, value) for name, value in members.items() if name not in arguments)
        return arguments


def read(wanted: Any, value: Any, where: str) -> Any:
    """Returns a value of JSON as a value of the type `wanted`. Raises `DoesNotFit`, which names `where` it stands."""
    origin, parts = typing.get_origin(wanted), typing.get_args(wanted)
    if origin is typing.Annotated:
        return read(parts[0], value, where)
    if origin is None and wanted in _PLAIN:
        return _PLAIN[wanted](value, where)
    if origin in (typing.Union, types.UnionType):
        return _read_union(parts, value, where)
    if origin is typing.Literal:
        return _expect(any(value == part and type(value) is type(part) for part in parts), value, where, str(wanted))
    if origin is not None or wanted in _COLLECTIONS:
        return _read_collection(origin or wanted, parts, value, where)
    if hasattr(wanted, "__supertype__"):
        return read(wanted.__supertype__, value, where)
    if typing.is_typeddict(wanted):
        return _read_members(wanted, value, where)
    if isinstance(wanted, type):
        return _read_class(wanted, value, where)
    return value


def _read_class(wanted: type, value: Any, where: str) -> Any:
    if _is_instance(value, wanted):
        return value
    if wanted in _FROM_TEXT:
        try:
            return _FROM_TEXT[wanted](value)
        except (TypeError, ValueError, ArithmeticError, AttributeError):
            raise _misfit(value, where, wanted.__name__) from None
    if issubclass(wanted, enum.Enum):
        try:
            return wanted(value)
        except ValueError as error:
            raise DoesNotFit(f"{where}: {error}") from None
    if dataclasses.is_dataclass(wanted):
        members = _read_members(wanted, value, where)
        try:
            return wanted(**members)
        except (TypeError, ValueError) as error:
            raise DoesNotFit(f"{where}: {error}") from None
    if callable(validate := getattr(wanted, "model_validate", None)):
        try:
            return validate(value)
        except (ValueError, LookupError, TypeError) as error:
            raise DoesNotFit(f"{where}: {error}") from None
    if issubclass(wanted, tuple) and hasattr(wanted, "_fields"):
        hints = typing.get_type_hints(wanted)
        return wanted(*_read_collection(tuple, tuple(hints.get(name, Any) for name in wanted._fields), value, where))
    for plain in (int, float, str, list, dict):
        if issubclass(wanted, plain):
            try:
                return wanted(read(plain, value, where))
            except (TypeError, ValueError) as error:
                raise DoesNotFit(f"{where}: {error}") from None
    raise _misfit(value, where, wanted.__name__)


def _is_instance(value: Any, wanted: type) -> bool:
    """Returns true also if `wanted` is a protocol that cannot be asked."""
    try:
        return isinstance(value, wanted)
    except TypeError:
        return True


def _read_members(wanted: type, value: Any, where: str) -> dict[str, Any]:
    """Reads the members of a dataclass or of a `TypedDict`, as far as they are there."""
    _expect(isinstance(value, dict), value, where, wanted.__name__)
    hints = typing.get_type_hints(wanted)
    return {name: read(hint, value[name], f"{where}.{name}") for name, hint in hints.items() if name in value}


def _read_union(parts: tuple[Any, ...], value: Any, where: str) -> Any:
    for part in parts:
        try:
            return read(part, value, where)
        except DoesNotFit:
            continue
    raise _misfit(value, where, " or ".join(getattr(part, "__name__", str(part)) for part in parts))


def _read_collection(origin: Any, parts: tuple[Any, ...], value: Any, where: str) -> Any:
    if origin in _MAPPINGS:
        _expect(isinstance(value, dict), value, where, "an object")
        key, member = parts or (str, Any)
        return {_read_key(key, name, where): read(member, each, f"{where}.{name}") for name, each in value.items()}
    if origin in _LISTS or origin in _SETS or origin is tuple:
        _expect(isinstance(value, list), value, where, "an array")
        if origin is tuple and parts and parts[-1] is not Ellipsis:
            _expect(len(value) == len(parts), value, where, f"an array of {len(parts)}")
            return tuple(read(part, each, f"{where}[{place}]") for place, (part, each) in enumerate(zip(parts, value)))
        items = [read(parts[0] if parts else Any, each, f"{where}[{place}]") for place, each in enumerate(value)]
        return tuple(items) if origin is tuple else _SETS.get(origin, list)(items)
    return _read_class(origin, value, where) if isinstance(origin, type) else value


def _read_key(wanted: Any, name: str, where: str) -> Any:
    """Reads the name of a member, which JSON always has as a text."""
    if wanted in (int, float):
        try:
            return wanted(name)
        except ValueError:
            raise _misfit(name, where, wanted.__name__) from None
    return read(wanted, name, where)


def _expect(is_so: bool, value: Any, where: str, wanted: str) -> Any:
    if not is_so:
        raise _misfit(value, where, wanted)
    return value


def _misfit(value: Any, where: str, wanted: str) -> DoesNotFit:
    return DoesNotFit(f"{where} must be {wanted}, not {_name_of(value)}")


def _name_of(value: object) -> str:
    names = {dict: "an object", list: "an array", type(None): "null"}
    text = names.get(type(value)) or repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


def _time(value: str) -> datetime.datetime:
    # Python 3.10 does not read the letter.
    return datetime.datetime.fromisoformat(value.replace("Z", "+00:00"))


_PLAIN: dict[Any, Callable[[Any, str], Any]] = {
    Any: lambda value, where: value,
    object: lambda value, where: value,
    None: lambda value, where: _expect(value is None, value, where, "null"),
    type(None): lambda value, where: _expect(value is None, value, where, "null"),
    bool: lambda value, where: _expect(isinstance(value, bool), value, where, "bool"),
    int: lambda value, where: _expect(isinstance(value, int) and not isinstance(value, bool), value, where, "int"),
    str: lambda value, where: _expect(isinstance(value, str), value, where, "str"),
    float: lambda value, where: float(
        _expect(isinstance(value, (int, float)) and not isinstance(value, bool), value, where, "float")
    ),
}

_FROM_TEXT: dict[type, Callable[[Any], Any]] = {
    datetime.datetime: _time,
    datetime.date: datetime.date.fromisoformat,
    datetime.time: datetime.time.fromisoformat,
    datetime.timedelta: lambda value: datetime.timedelta(seconds=value),
    uuid.UUID: uuid.UUID,
    decimal.Decimal: lambda value: decimal.Decimal(str(value)),
}
