"""The command lines of the scripts, where a mistake ends in one sentence.

Jobs that need an experiment take ``--config=FILE:VARIANT --config.section.field=value``, the others have a :class:`Parser`.
"""

import argparse
import contextlib
import dataclasses
import difflib
import sys
from collections.abc import Callable, Iterator, Sequence

from absl import app, flags, logging
from ml_collections import config_flags

from dd_jax.config import Config, ConfigError


def run(main: Callable[[], None], *errors: type[Exception]) -> None:
    """Parses the flags of the command line and calls ``main``; a ConfigError, or one of ``errors``, is printed as a sentence."""

    def quietly(_: object) -> None:
        logging.set_verbosity(logging.WARNING)
        main()

    with one_sentence(*errors):
        app.run(quietly, flags_parser=parse)


class Parser(argparse.ArgumentParser):
    """Flags of a script, whose docstring describes it."""

    def __init__(self, description: str):
        super().__init__(
            description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
        )

    def error(self, message: str) -> None:
        """Ends the program; replaces argparse's page of usage."""
        sys.exit(f"error: {message}; --help explains the flags")


def positive(text: str) -> int:
    """A flag's whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no number of at least 1")
    return int(text)


@contextlib.contextmanager
def one_sentence(*errors: type[Exception]) -> Iterator[None]:
    """Ends the program with a sentence where a ConfigError, an OSError or one of ``errors`` would end it with a traceback."""
    try:
        yield
    except (ConfigError, *errors) as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        if error.filename is None:
            sys.exit(f"error: {error}")
        sys.exit(f"error: {error.filename} cannot be read or written ({error.strerror}): name another file or folder")


def config_of(arguments: Sequence[str]) -> Config:
    """The config that these arguments, without a program's name, ask for; raises as :func:`parse`."""
    values, arguments = flags.FlagValues(), ["", *arguments]
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=arguments)
    parse(arguments, values)
    return values["config"].value


def parse(arguments: Sequence[str], values: flags.FlagValues = flags.FLAGS) -> list[str]:
    """Sets the flags ``values``, one of which is ``--config``; returns what is left of the arguments.

    Raises:
      ConfigError: a file, variant, field or flag that is not there, or a value of another type.
    """
    for argument in arguments[1:]:
        flag = argument.lstrip("-").partition("=")[0]
        if flag.startswith("config."):
            check_field(flag.removeprefix("config."))
    try:
        rest = values(arguments)
        _ = values["config"].value.name  # of a file that could not be read, this says so
    except flags.Error as error:
        own = [cause for cause in causes(error) if isinstance(cause, ConfigError)]
        said = str(own[-1]) if own else "; ".join(line.removeprefix("flag ") for line in str(error).splitlines())
        raise ConfigError(said) from error
    except (OSError, SyntaxError, ImportError, AttributeError) as error:
        raise ConfigError(f"--config: {(str(error).splitlines() or ['cannot be read'])[-1].strip()}") from error
    return rest


def check_field(path: str) -> None:
    """Whether the config has the field ``section.field``.

    Raises:
      ConfigError: it has not; the message names those with the nearest names.
    """
    fields = ["name"]
    for section in dataclasses.fields(Config):
        if section.name != "name":
            fields += [f"{section.name}.{field.name}" for field in dataclasses.fields(section.default_factory)]
    if path not in fields:
        nearest = " or ".join(f"--config.{name}" for name in difflib.get_close_matches(path, fields, n=2))
        hint = f"did you mean {nearest}?" if nearest else "dd_jax/config.py has them all"
        raise ConfigError(f"--config.{path} is not a field of the config; {hint}")


def causes(error: BaseException | None) -> list[BaseException]:
    """The exception and those in whose handling it was raised, the latest first."""
    return [] if error is None else [error, *causes(error.__cause__ or error.__context__)]
