"""What all programs share: entry, help, and errors without tracebacks.

A program is a module with a docstring that teaches, its flags, and `run(argv)`; its last lines are

    def main() -> None:
        cli.launch(__name__, run, _SHARED_FLAGS)

    if __name__ == "__main__":
        main()

so that `python -m scripts.NAME` and the console command NAME behave alike. Exit status: 0 done, 1 an error that the
message explains, 2 wrong usage, 3 data that is not what it must be by its digests or checksums, 4 a server that cannot
be reached or fails, 130 interrupted, 143 terminated.
"""

from collections.abc import Callable, Collection, Sequence
import re
import signal
import sys
import textwrap
from typing import Any

from absl import app, flags, logging

from zoo import errors

# Accepted by every program, so that one set of options serves a whole script of commands.
_EVERYWHERE = ("data_dir", "device")


DAMAGED_STATUS = 3
_STATUSES = {
    errors.UsageError: 2,
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
        print(_help(module, own))
        sys.exit(0)
    signal.signal(signal.SIGTERM, _terminate)
    known = {flag.name for flag in own}
    app.run(lambda argv: sys.exit(_guarded(run, argv)), flags_parser=lambda argv: _parse(known, argv))


def _terminate(*_: Any) -> None:
    raise _Terminated


def _parse(known: Collection[str], argv: list[str]) -> list[str]:
    try:
        rest = flags.FLAGS(argv)
    except flags.Error as error:
        _fail(f"{error}\nRun with --help to see what there is.", status=2)
    if len(rest) > 1:
        _fail(f"unexpected argument {rest[1]!r}: options are given as --name=value; see --help", status=2)
    # Modules that programs share define flags for all of them; one that this program does not read would do nothing.
    for module, defined in flags.FLAGS.flags_by_module_dict().items():
        for flag in defined if module.startswith("scripts.") else ():
            if flag.present and flag.name not in known and flag.name not in _EVERYWHERE:
                _fail(f"--{flag.name} is not read by this program; see --help", status=2)
    return rest


def _guarded(run: Callable[[Sequence[str]], int | None], argv: Sequence[str]) -> int:
    logging.set_verbosity(logging.WARNING)  # libraries report every file they open as news
    try:
        return run(argv) or 0
    except (errors.HeldoutError, OSError) as error:
        print(f"error: {errors.explain(error)}", file=sys.stderr)
        return next((status for kind, status in _STATUSES.items() if isinstance(error, kind)), 1)
    except KeyboardInterrupt as interrupt:
        terminated = isinstance(interrupt, _Terminated)
        word = "terminated" if terminated else "interrupted"
        print(f"\n{word}: what was finished is kept, the same command continues", file=sys.stderr)
        return 143 if terminated else 130


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
    if isinstance(flag, flags.EnumFlag):
        return "|".join(flag.parser.enum_values)
    if flag.flag_type().startswith("comma"):
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
