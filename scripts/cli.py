"""What all programs share: entry, help, and errors without tracebacks.

A program is a module with a docstring that teaches, its flags, and `run(argv)`; its last lines are

    def main() -> None:
        cli.launch(__name__, run)

    if __name__ == "__main__":
        main()

so that `python -m scripts.NAME` and the console command NAME behave alike. Exit status: 0 done, 1 an error that the
message explains, 2 wrong usage, 130 interrupted.
"""

from collections.abc import Callable, Sequence
import re
import sys
import textwrap
from typing import Any

from absl import app, flags

from zoo import errors


def launch(module_name: str, run: Callable[[Sequence[str]], int | None]) -> None:
    """Parses the flags of a program and runs it; does not return.

    Args:
        module_name: `__name__` of the program's module.
        run: its body; the returned number is the exit status.
    """
    module = sys.modules[module_name]
    if any(argument in ("--help", "-help", "-h", "-?") for argument in sys.argv[1:]):
        print(_help(module))
        sys.exit(0)
    app.run(lambda argv: sys.exit(_guarded(run, argv)), flags_parser=_parse)


def _parse(argv: list[str]) -> list[str]:
    try:
        rest = flags.FLAGS(argv)
    except flags.Error as error:
        _fail(f"{error}\nRun with --help to see what there is.", status=2)
    if len(rest) > 1:
        _fail(f"unexpected argument {rest[1]!r}: options are given as --name=value; see --help", status=2)
    return rest


def _guarded(run: Callable[[Sequence[str]], int | None], argv: Sequence[str]) -> int:
    try:
        return run(argv) or 0
    except (errors.HeldoutError, OSError) as error:
        print(f"error: {errors.explain(error)}", file=sys.stderr)
    except KeyboardInterrupt:
        print("\ninterrupted: what was finished is kept, the same command continues", file=sys.stderr)
        return 130
    return 1


def _fail(message: str, status: int) -> Any:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(status)


def _help(module: Any) -> str:
    """The docstring of the program, then each of its flags with its default."""
    own = flags.FLAGS.get_key_flags_for_module(module) or flags.FLAGS.get_key_flags_for_module(sys.argv[0])
    lines = [(module.__doc__ or "").strip(), "", "Flags:"]
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
