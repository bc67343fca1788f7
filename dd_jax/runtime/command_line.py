"""Command lines of the scripts; expected errors end the program with one sentence.

Jobs that need a config take ``--config=FILE:VARIANT --config.section.field=value``, the others use a :class:`Parser`.
"""

import argparse
import ast
import contextlib
import dataclasses
import difflib
import sys
from collections.abc import Callable, Iterator, Sequence

from absl import app, flags, logging
from ml_collections import config_flags

from dd_jax.config import Config, ConfigError, from_dict, to_dict
from dd_jax.runtime import cpu_flags


def run(main: Callable[[], None], *errors: type[Exception]) -> None:
    """Parses the absl flags of the command line and calls ``main`` as a :func:`job`."""

    def quietly(_: object) -> None:
        logging.set_verbosity(logging.WARNING)
        main()

    with job(*errors):
        app.run(quietly, flags_parser=parse)


class Parser(argparse.ArgumentParser):
    """Argument parser of a script, described by the script's docstring."""

    def __init__(self, description: str):
        super().__init__(description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)

    def error(self, message: str) -> None:
        """Exits with one sentence instead of argparse's usage text."""
        sys.exit(f"error: {message}; --help explains the flags")


def positive(text: str) -> int:
    """The value of an integer flag that must be at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} must be an integer of at least 1")
    return int(text)


def numbers(message: str, *counts: int) -> Callable[[str], tuple[float, ...]]:
    """Type of an argparse flag of comma-separated numbers, as many as one of ``counts``; ``message`` says which are needed."""

    def parsed(text: str) -> tuple[float, ...]:
        try:
            values = tuple(float(word) for word in text.split(","))
        except ValueError:
            values = ()
        if len(values) not in counts:
            raise argparse.ArgumentTypeError(message)
        return values

    return parsed


def require(*names: str) -> None:
    """Makes absl flags required; :func:`run` then raises a ConfigError that names the missing ones."""

    def check(values: dict[str, object]) -> bool:
        missing = [f"--{name}" for name in names if values[name] is None]
        if missing:
            raise ConfigError(f"{' and '.join(missing)} {'are' if len(missing) > 1 else 'is'} required: see --help")
        return True

    flags.register_multi_flags_validator(names, check)


@contextlib.contextmanager
def job(*errors: type[Exception]) -> Iterator[None]:
    """Context of the main part of a script, entered before JAX initialises its backend.

    Sets the default CPU flags. A ConfigError, an OSError or one of ``errors`` ends the program with one sentence, not with a
    traceback.
    """
    cpu_flags.set_defaults()
    try:
        yield
    except (ConfigError, *errors) as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        if error.filename is None:
            sys.exit(f"error: {error}")
        sys.exit(f"error: {error.filename} cannot be read or written ({error.strerror}): choose another file or folder")


OF_CHECKPOINT = {
    "--config.data.allow_pickle=True": "--allow_pickle",
    **{f"--config.data.{name}": f"--{name}" for name in ("split_dir", "cache_dir", "ground_truth_file")},
    "--config.data.root": "--data_root",
    "--config.eval.": "--",
}
"""Flag of a config's field -> flag of the scripts that take the config of a checkpoint."""


@contextlib.contextmanager
def own_flags() -> Iterator[None]:
    """Errors name the flags of a script without ``--config`` (:data:`OF_CHECKPOINT`)."""
    try:
        yield
    except ConfigError as error:
        message = str(error)
        for field, own in OF_CHECKPOINT.items():
            message = message.replace(field, own)
        raise ConfigError(message) from error


def config_of(arguments: Sequence[str]) -> Config:
    """The config given by these arguments (without the program name); raises as :func:`parse`."""
    values, arguments = flags.FlagValues(), ["", *arguments]
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=arguments)
    parse(arguments, values)
    return values["config"].value


def parse(arguments: Sequence[str], values: flags.FlagValues = flags.FLAGS) -> list[str]:
    """Sets the flags ``values``, one of which is ``--config``; returns the remaining arguments.

    Raises:
      ConfigError: an unknown file, variant, field or flag, or a value of the wrong type.
    """
    for argument in arguments[1:]:
        flag = argument.lstrip("-").partition("=")[0]
        if flag.startswith("config."):
            check_field(flag.removeprefix("config."))
    try:
        rest = values(arguments)
        _ = values["config"].value.name  # raises if the file could not be read
    except flags.Error as error:
        own = [cause for cause in causes(error) if isinstance(cause, ConfigError)]
        said = str(own[-1]) if own else "; ".join(line.removeprefix("flag ") for line in str(error).splitlines())
        raise ConfigError(said) from error
    except (OSError, SyntaxError, ImportError, AttributeError) as error:
        raise ConfigError(f"--config: {(str(error).splitlines() or ['cannot be read'])[-1].strip()}") from error
    return rest


def check_field(path: str) -> None:
    """Checks that the config has the field ``section.field``.

    Raises:
      ConfigError: it does not; the message suggests fields with similar names.
    """
    fields = ["name"]
    for section in dataclasses.fields(Config):
        if section.name != "name":
            fields += [f"{section.name}.{field.name}" for field in dataclasses.fields(section.default_factory)]
    if path not in fields:
        nearest = " or ".join(f"--config.{name}" for name in difflib.get_close_matches(path, fields, n=2))
        hint = f"did you mean {nearest}?" if nearest else "see dd_jax/config/schema.py for all fields"
        raise ConfigError(f"--config.{path} is not a field of the config; {hint}")


def with_field(config: Config, path: str, value: str) -> Config:
    """A copy of ``config`` with another value of the field ``section.field``, as written on the command line.

    Raises:
      ConfigError: no such field, or a value of another type.
    """
    check_field(path)
    values = to_dict(config)
    section, _, name = path.rpartition(".")
    fields = values[section] if section else values
    fields[name] = _parsed(value, type(fields[name]))
    return from_dict(values)


def _parsed(value: str, kind: type) -> object:
    """A value of the command line; one that does not parse stays a string, which ``from_dict`` then refuses."""
    if kind is str:
        return value
    try:
        return ast.literal_eval(value.capitalize() if kind is bool else value)
    except (ValueError, SyntaxError):
        return value


def causes(error: BaseException | None) -> list[BaseException]:
    """The exception and its chain of causes, the latest first."""
    return [] if error is None else [error, *causes(error.__cause__ or error.__context__)]
