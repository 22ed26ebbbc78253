"""Configuration as a frozen dataclass; the command line and the JSON are made from it.

::

    @dataclass(frozen=True)
    class TrainConfig(Config):
        env: str = option(help="Environment to train on.")
        n_envs: int = option(64, "Number of parallel environments.")
        memory: Literal["rel", "mem"] = option("rel", "Memory of the agent.")

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.n_envs < 1:
                raise ConfigError("n_envs", self.n_envs, "it must be at least 1")

A field is a bool, int, float or str (or a ``Literal`` of those), a ``tuple[..., ...]`` of one of
them, or one of these ``| None``. What a field decides is said where it stands:
``option(64, "...", role="budget")``, see :data:`Role`.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import types
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

from relagent.errors import RelagentError, did_you_mean


class ConfigError(RelagentError):
    """A setting that cannot work."""

    def __init__(self, name: str, value: object, rule: str) -> None:
        super().__init__(f"{name} is {value!r}; {rule}")


class ConfigKeyError(RelagentError):
    """Settings that are unknown, or missing."""


def check_seed(seed: int) -> None:
    """Check that a seed is one that every generator takes: 32 bits.

    Raises:
        ConfigError: it is not.
    """
    if not 0 <= seed < 2**32:
        raise ConfigError("seed", seed, "it must be at least 0 and less than 2**32")


FOLDER_RULE = "it must name a folder; . is this one"
"""What "" breaks, which would be the current folder."""


def check_folder(name: str, folder: str | None) -> None:
    """Check that a folder, where one is given, has a name.

    Raises:
        ConfigError: it has none.
    """
    if folder == "":
        raise ConfigError(name, folder, FOLDER_RULE)


MOST_THREADS = 1024


def check_threads(threads: int) -> None:
    """Check that a number of threads is one that a machine can start.

    Raises:
        ConfigError: it is not.
    """
    if not 1 <= threads <= MOST_THREADS:
        raise ConfigError("threads", threads, f"it must be at least 1 and at most {MOST_THREADS:,}")


Role = Literal["result", "budget", "machine"]
"""What a setting decides: what is learned (*result*), for how long (*budget*: more of it goes on
where less of it ended), or where and from where it is computed (*machine*: never what comes out,
but for rounding). A run that is resumed may change the last two.
"""


def option(
    default: Any = dataclasses.MISSING,
    help: str = "",
    *,
    flag: str | None = None,
    repeat: bool = False,
    role: Role = "result",
    default_is: str | None = None,
) -> Any:
    """A field of a :class:`Config`.

    Args:
        default: immutable; a field without one must be given.
        help: one sentence, shown by ``--help``.
        flag: the command-line flag, where it is not the field's name with dashes.
        repeat: of a tuple: the flag takes one value and may be given again.
        role: what it decides.
        default_is: what the command line takes instead of a default of the field, in words.
    """
    metadata = {
        "help": help,
        "flag": flag,
        "repeat": repeat,
        "role": role,
        "default_is": default_is,
    }
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class Config:
    """Base class of configurations: checks the type and the choices of every field when made.

    An int for a float becomes one, and a list for a tuple. Subclasses check ranges in their
    ``__post_init__`` after calling this one.

    Raises:
        ConfigError: a value of another type, not finite, too large, or not among the choices.
    """

    def __post_init__(self) -> None:
        for name, kind in _kinds(type(self)).items():
            # Frozen for users; this runs before anybody holds the object.
            object.__setattr__(self, name, kind.check(name, getattr(self, name)))


ConfigT = TypeVar("ConfigT", bound=Config)


def names_of(config_class: type[Config], *roles: Role) -> tuple[str, ...]:
    """The names of the settings with one of these roles, in their order."""
    fields = dataclasses.fields(config_class)
    return tuple(field.name for field in fields if field.metadata.get("role", "result") in roles)


class _Kind(NamedTuple):
    """What a field accepts."""

    base: type
    optional: bool
    many: bool
    choices: tuple[Any, ...] | None

    def describe(self) -> str:
        one = " or ".join(map(repr, self.choices)) if self.choices else _WORDS[self.base]
        return (f"a list, each {one}" if self.many else one) + " or none" * self.optional

    def check(self, name: str, value: Any) -> Any:
        """The value as this kind holds it; raises ConfigError."""
        if value is None and self.optional:
            return None
        if not self.many:
            return self._check_one(name, value)
        if not isinstance(value, tuple | list):
            raise ConfigError(name, value, f"it must be {self.describe()}")
        return tuple(self._check_one(name, item) for item in value)

    def _check_one(self, name: str, value: Any) -> Any:
        if self.base is float and type(value) in (int, float):
            fits = abs(value) <= sys.float_info.max  # False for infinities and NaN
        else:
            fits = type(value) is self.base
        if not fits or (self.choices and value not in self.choices):
            raise ConfigError(name, value, f"it must be {self.describe()}")
        if self.base in _LARGEST:
            largest, words = _LARGEST[self.base]
            if abs(value) > largest:
                raise ConfigError(name, value, f"it must be at most {words} in size")
        return self.base(value)


_WORDS = {bool: "true or false", int: "a whole number", float: "a finite number", str: "a text"}

# JSON keeps whole numbers to 2**53 everywhere; single precision, which computes, ends at 3.4e38.
_LARGEST = {int: (2**53, "2**53"), float: (3e38, "3e38")}


def _kinds(config_class: type[Config]) -> dict[str, _Kind]:
    hints = get_type_hints(config_class)
    return {
        field.name: _kind(field, hints[field.name]) for field in dataclasses.fields(config_class)
    }


def _kind(field: dataclasses.Field[Any], hint: Any) -> _Kind:
    choices: tuple[Any, ...] | None = None
    optional = many = False
    if get_origin(hint) in (Union, types.UnionType) and type(None) in get_args(hint):
        optional = True
        (hint,) = (arg for arg in get_args(hint) if arg is not type(None))
    if get_origin(hint) is tuple and get_args(hint)[1:] == (...,):
        many = True
        hint = get_args(hint)[0]
    if get_origin(hint) is Literal:
        choices = get_args(hint)
        hint = type(choices[0])
    if hint not in _WORDS:
        raise TypeError(f"{field.name}: {hint} cannot be a setting, see relagent.runs.config")
    return _Kind(hint, optional, many, choices)


def to_json(config: Config) -> dict[str, Any]:
    """The settings as a JSON object: one key a field."""
    values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}


def from_json(config_class: type[ConfigT], data: Any) -> ConfigT:
    """The configuration that :func:`to_json` described.

    Raises:
        ConfigKeyError: ``data`` is no object, or a key is unknown or missing.
        ConfigError: a value does not fit its field.
    """
    names = [field.name for field in dataclasses.fields(config_class)]
    if not isinstance(data, Mapping):
        raise ConfigKeyError(f"settings must be a JSON object, not a {type(data).__name__}")
    for name in data:
        if name not in names:
            hint = did_you_mean(str(name), names) or f"; known are {', '.join(names)}"
            raise ConfigKeyError(f"unknown setting {name!r}{hint}")
    missing = [name for name in names if name not in data]
    if missing:
        raise ConfigKeyError(f"missing setting {', '.join(missing)}; every setting must be there")
    return config_class(**data)


def add_arguments(
    parser: argparse.ArgumentParser,
    config_class: type[Config],
    defaults: Mapping[str, str] | None = None,
) -> None:
    """Add one flag for each field: ``--n-envs N`` for ``n_envs``, ``--flag/--no-flag`` for a bool.

    A tuple takes several values (or one at a time: ``repeat``). A field that may be None takes
    ``none``, unless it has choices. A flag that is not given leaves nothing in the namespace, so
    :func:`given_arguments` knows what the user asked for.

    Args:
        parser: gets the flags.
        config_class: has the fields.
        defaults: of this command where they are not those of the class: in words, for its help.
    """
    kinds = _kinds(config_class)
    for field in dataclasses.fields(config_class):
        kind = kinds[field.name]
        settings: dict[str, Any] = {
            "dest": field.name,
            "default": argparse.SUPPRESS,
            "help": _help(field, (defaults or {}).get(field.name)).replace("%", "%%"),
        }
        if kind.base is bool:
            settings["action"] = argparse.BooleanOptionalAction
        else:
            name = _flag(field).removeprefix("--").replace("-", "_").upper()
            settings["type"] = _reader(kind)
            settings["metavar"] = {int: "N", float: "X", str: name}[kind.base]
            if kind.choices:
                settings["choices"] = kind.choices
                del settings["metavar"]  # argparse shows the choices
            if kind.many:
                settings |= {"action": "append"} if field.metadata.get("repeat") else {"nargs": "*"}
        parser.add_argument(_flag(field), **settings)


def from_arguments(config_class: type[ConfigT], arguments: argparse.Namespace) -> ConfigT:
    """The configuration that the command line asked for.

    Args:
        config_class: what to make.
        arguments: parsed by a parser that :func:`add_arguments` prepared.

    Raises:
        ConfigKeyError: a setting without a default was not given.
        ConfigError: a value cannot work.
    """
    given = given_arguments(config_class, arguments)
    for field in dataclasses.fields(config_class):
        if field.default is dataclasses.MISSING and field.name not in given:
            raise ConfigKeyError(f"{_flag(field)} is needed: {field.metadata.get('help', '')}")
    return config_class(**given)


def given_arguments(config_class: type[Config], arguments: argparse.Namespace) -> dict[str, Any]:
    """The settings that the command line names, as their fields hold them."""
    fields = dataclasses.fields(config_class)
    given = {f.name: getattr(arguments, f.name) for f in fields if hasattr(arguments, f.name)}
    for name, value in given.items():
        if isinstance(value, list):
            given[name] = None if value == [None] else tuple(value)
    return given


def _flag(field: dataclasses.Field[Any]) -> str:
    return field.metadata.get("flag") or flag_of(field.name)


def flag_of(name: str) -> str:
    """Return the command-line flag of a setting that has none of its own."""
    return "--" + name.replace("_", "-")


def _help(field: dataclasses.Field[Any], default: str | None = None) -> str:
    text = str(field.metadata.get("help", ""))
    default = default or field.metadata.get("default_is")
    if default is None:
        if field.default is dataclasses.MISSING:
            return text
        many = isinstance(field.default, tuple)
        default = " ".join(map(str, field.default)) if many else str(field.default)
        if default in ("", "None"):
            default = "none"
    return f"{text} (default: {default})"


def _reader(kind: _Kind) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        return None if kind.optional and text.lower() == "none" else kind.base(text)

    read.__name__ = kind.base.__name__  # argparse says "invalid int value" with it
    return read
