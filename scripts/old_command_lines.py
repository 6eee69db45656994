"""Command lines and environment variables of the programs that ours take the place of.

    --label-noise=0.1        is --label_noise=0.1
    SAVE_DIR=/tmp/models     is the default of --save_dir, and so on for `VARIABLES`; a flag wins

A program reads the environment where it defines its flags, checks it first thing in `run`, and rewrites its arguments
before they are parsed:

    _ENVIRONMENT = old_command_lines.defaults_from_environment()
    _SAVE_DIR = flags.DEFINE_string("save_dir", _ENVIRONMENT.get("save_dir"), "...")

    def run(argv):
        old_command_lines.check_environment()

    def main() -> None:
        sys.argv = old_command_lines.with_underscores(sys.argv)
        cli.launch(__name__, run, _SHARED_FLAGS)
"""

from collections.abc import Sequence
import os
import re

from zoo import errors

# Variable -> flag.
VARIABLES = {"SAVE_DIR": "save_dir", "NAME": "name", "DATA_DIR": "data_dir", "DEVICE": "device", "WORKERS": "workers"}
_DEVICES = ("cpu", "gpu", "tpu")
# -name or --name, alone or with a value; a number below 0 is none.
_OPTION = re.compile(r"(--?)([A-Za-z][\w-]*)(=.*)?", re.DOTALL)


def with_underscores(argv: Sequence[str]) -> list[str]:
    """Arguments with underscores for the hyphens in names of flags; values stay as they are.

    `--no-progress` is `--noprogress`; whatever follows a bare `--` is no flag.
    """
    found: list[str] = []
    for position, argument in enumerate(argv):
        if argument == "--":
            return found + list(argv[position:])
        parts = _OPTION.fullmatch(argument) if position else None
        if parts is None or "-" not in parts[2]:
            found.append(argument)
            continue
        name = re.sub(r"^no-", "no", parts[2]).replace("-", "_")
        found.append(f"{parts[1]}{name}{parts[3] or ''}")
    return found


def defaults_from_environment() -> dict[str, str]:
    """Flag -> value of the variables in `VARIABLES` that are set and can be; `check_environment` refuses the others.

    "cuda" and "cuda:0" are the device "gpu".
    """
    found = {}
    for variable, flag in VARIABLES.items():
        text = os.environ.get(variable, "").strip()
        if text and _is_possible(flag, value := _value(flag, text)):
            found[flag] = value
    return found


def check_environment() -> None:
    """Refuses variables that cannot be.

    Raises:
        InvalidValueError: DEVICE is none that there is, or WORKERS no whole number from 1 up.
    """
    for variable, flag in VARIABLES.items():
        text = os.environ.get(variable, "").strip()
        if text and not _is_possible(flag, _value(flag, text)):
            expected = f"one of {', '.join(_DEVICES)}" if flag == "device" else "a whole number from 1 up"
            raise errors.InvalidValueError(
                f"environment variable {variable}={text}: expected {expected}; set it so, or unset it and give --{flag}"
            )


def _value(flag: str, text: str) -> str:
    return "gpu" if flag == "device" and re.fullmatch(r"cuda(:\d+)?", text.lower()) else text


def _is_possible(flag: str, value: str) -> bool:
    if flag == "device":
        return value in _DEVICES
    return flag != "workers" or re.fullmatch(r"[1-9]\d{0,5}", value) is not None
