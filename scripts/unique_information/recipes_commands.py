"""Experiments as sequences of our programs with their flags; needs no TensorFlow."""

from collections.abc import Callable, Mapping
import dataclasses
import shlex

Value = str | int | float | bool


@dataclasses.dataclass(frozen=True)
class Command:
    """One program with its flags.

    Attributes:
        program: its name.
        flags: by name; True stands for --name alone.
    """

    program: str
    flags: Mapping[str, Value]

    def arguments(self) -> list[str]:
        """As on a command line, behind the name of the program."""
        return [f"--{name}" if value is True else f"--{name}={_text(value)}" for name, value in self.flags.items()]

    def text(self) -> str:
        """As it can be typed."""
        return shlex.join(["python", "-m", f"scripts.{self.program}", *self.arguments()])


def _text(value: Value) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


@dataclasses.dataclass(frozen=True)
class Setting:
    """What all commands of a call share.

    Attributes:
        outdir: folder of all experiments.
        small: whether to run a form of each on digits that takes a minute or so.
        data_dir: of prepared data sets; None for the default.
        device: "cpu", "gpu" or "tpu".
        body: prefix of a checkpoint of resnet18_64 with batch normalisation; None to train one.
    """

    outdir: str
    small: bool = False
    data_dir: str | None = None
    device: str = "cpu"
    body: str | None = None

    def shared_flags(self) -> dict[str, Value]:
        """Flags that every command takes."""
        found: dict[str, Value] = {} if self.data_dir is None else {"data_dir": self.data_dir}
        return found if self.device == "cpu" else found | {"device": self.device}


@dataclasses.dataclass(frozen=True)
class Experiment:
    """What the source did, in our commands.

    Attributes:
        name: of the experiment, and of its folder.
        summary: what it shows, in a line.
        make: its commands, from a setting and the folder.
        notes: what is our choice, or differs from the source; empty where nothing is.
    """

    name: str
    summary: str
    make: Callable[[Setting, str], list[Command]]
    notes: str = ""

    def commands(self, setting: Setting) -> list[Command]:
        """In the order in which they are to run."""
        return self.make(setting, f"{setting.outdir}/{self.name}")
