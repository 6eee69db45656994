"""What all programs share: entry, help, and errors without tracebacks.

A program is a module with a docstring that teaches, its flags, and `run(argv)`; its last lines are

    def main() -> None:
        cli.launch(__name__, run, _SHARED_FLAGS)

    if __name__ == "__main__":
        main()

so that `python -m scripts.NAME` and the console command NAME behave alike. Exit status, the same in every program:

    0    done
    1    an error that the message explains: a file that is not there or in the way, a disk that is full
    2    wrong usage: a flag that is not known, is missing, contradicts another, or has a value that it cannot have
    3    data that is not what it must be by its digests or checksums
    4    a server that cannot be reached or fails
    130  interrupted
    141  nobody reads the output any more
    143  terminated
"""

from collections.abc import Callable, Collection, Sequence
import os
import re
import shlex
import signal
import sys
import textwrap
from typing import Any

from absl import app, flags, logging

from zoo import errors

# Accepted by every program, so that one set of options serves a whole script of commands.
_EVERYWHERE = ("data_dir", "device")


USAGE_STATUS = 2
DAMAGED_STATUS = 3
_STATUSES = {
    errors.InvalidValueError: USAGE_STATUS,
    errors.IntegrityError: DAMAGED_STATUS,
    errors.UnsafeArchiveError: DAMAGED_STATUS,
    errors.NetworkError: 4,
}


class _Terminated(KeyboardInterrupt):
    """SIGTERM, as a scheduler sends it: ends a program as tidily as Ctrl-C."""


def launch(module_name: str, run: Callable[[Sequence[str]], int | None], shared_flags: Sequence[str] = ()) -> None:
    """Parses the flags of a program and runs it; does not return.

    Args:
        module_name: `__name__` of the program's module.
        run: its body; the returned number is the exit status.
        shared_flags: names of those in scripts/common_flags.py that the program reads.
    """
    module = sys.modules[module_name]
    own = [flags.FLAGS[name] for name in shared_flags] + flags.FLAGS.get_flags_for_module(module)
    if any(argument in ("--help", "-help", "-h", "-?") for argument in sys.argv[1:]):
        sys.exit(_until_nobody_reads(lambda: print(_help(module, own), flush=True)))
    signal.signal(signal.SIGTERM, _terminate)
    known = {flag.name for flag in own}
    app.run(lambda argv: sys.exit(_guarded(run, argv)), flags_parser=lambda argv: _parse(known, argv))


def _terminate(*_: Any) -> None:
    raise _Terminated


def _parse(known: Collection[str], argv: list[str]) -> list[str]:
    try:
        rest = flags.FLAGS(argv)
    except flags.Error as error:
        _fail(f"{error}\nRun with --help to see what there is.", status=USAGE_STATUS)
    if len(rest) > 1:
        _fail(f"unexpected argument {rest[1]!r}: options are given as --name=value; see --help", status=USAGE_STATUS)
    # Modules that programs share define flags for all of them; one that this program does not read would do nothing.
    for module, defined in flags.FLAGS.flags_by_module_dict().items():
        for flag in defined if module.startswith("scripts.") else ():
            if flag.present and flag.name not in known and flag.name not in _EVERYWHERE:
                _fail(f"--{flag.name} is not read by this program; see --help", status=USAGE_STATUS)
    return rest


def _until_nobody_reads(body: Callable[[], int | None]) -> int | None:
    """Runs a body; where its output goes to a program such as `head` that reads no further, it ends without a word."""
    try:
        found = body()
        sys.stdout.flush()
        return found
    except BrokenPipeError:
        # Python would try once more to write what is left, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE


def _guarded(run: Callable[[Sequence[str]], int | None], argv: Sequence[str]) -> int:
    logging.set_verbosity(logging.WARNING)  # libraries report every file they open as news
    try:
        return _until_nobody_reads(lambda: run(argv)) or 0
    except (errors.HeldoutError, OSError) as error:
        print(f"error: {errors.explain(error)}", file=sys.stderr)
        return next((status for kind, status in _STATUSES.items() if isinstance(error, kind)), 1)
    except KeyboardInterrupt as interrupt:
        terminated = isinstance(interrupt, _Terminated)
        word = "terminated" if terminated else "interrupted"
        print(f"\n{word}: the same command continues with what is left to do", file=sys.stderr)
        return 143 if terminated else 130


def say_next(program: str, *arguments: str) -> None:
    """Prints the command that follows a successful one, as it can be typed.

    Args:
        program: its name.
        arguments: its flags.
    """
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    is_module = spec is not None and spec.name.startswith("scripts.")
    start = ["python", "-m", f"scripts.{program}"] if is_module else [program]
    print(f"next: {shlex.join([*start, *arguments])}")


def _fail(message: str, status: int) -> Any:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(status)


def _help(module: Any, own: Sequence[flags.Flag]) -> str:
    """The docstring of the program, then each of its flags with its default."""
    text = (module.__doc__ or "").strip()
    if module.__name__ != "__main__":  # started as a console command
        text = re.sub(r"python -m scripts\.(\w+)", r"\1", text)
    lines = [text, "", "Flags:"]
    for flag in own:
        lines.append(f"  --[no]{flag.name}" if flag.boolean else f"  --{flag.name}={_kind(flag)}")
        lines.append(textwrap.indent(textwrap.fill(_explanation(flag), 94), " " * 6))
    return "\n".join(lines)


def _kind(flag: flags.Flag) -> str:
    """What stands behind the equals sign."""
    if isinstance(flag.parser, flags.EnumParser):
        return "|".join(flag.parser.enum_values)
    # Texts that may be given several times are split at commas, too: see `choices.several_of`.
    if flag.flag_type().startswith(("comma", "multi string")):
        return "A,B,..."
    return flag.flag_type().removeprefix("multi ").upper()


def _explanation(flag: flags.Flag) -> str:
    """The flag's help without what absl adds to it, and its default."""
    text = re.sub(r"^<[^>]*>: |;\s+repeat this option to specify a list of values", "", flag.help)
    if isinstance(flag, flags.MultiFlag):
        text += " May be given several times."
    default = flag.default
    if isinstance(default, list):
        default = ",".join(map(str, default))
    if isinstance(default, bool):
        default = str(default).lower()
    return text if default in (None, "") else f"{text} (default: {default})"
