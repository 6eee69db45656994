r"""Runs the published experiments on unique information, or prints them as commands of ours with all hyper-parameters.

    python -m scripts.reproduce_unique_information --print_commands
    python -m scripts.reproduce_unique_information --experiment=mnist-mlp --small --outdir=/tmp/unique_information

The first prints a script: each experiment of Harutyunyan et al. (ICLR 2021) as the commands that make it, from the
training of a body on other data to the figures. The second runs the commands of some experiments one after the other,
here in a small form on digits that takes a minute or so; without --small take an accelerator and hours, and data sets
that TensorFlow Datasets has prepared. Experiments are

    mnist-mlp, mnist-cnn, mnist-cnn-pretrained, cats-dogs-resnet18, cats-dogs-resnet50, cassava-resnet18,
    cassava-resnet50                           scores and influence functions against retraining without each example
    mislabeled-mnist, mislabeled-cats-dogs     whether scores find labels that are wrong
    rare-subclass, rare-source                 whether examples of a rare kind are informative
    summarize-mnist, summarize-cassava         training on what is left without the most or least informative
    synthetic                                  points in the plane over time, as an animation

and each goes to a folder of its name under --outdir; bodies, which several share, to networks/. The commands say what
they wrote. A healthy run prints what they print, each behind a line such as

    mnist-mlp, 3 of 7: python -m scripts.aggregate_ground_truth --ground_truth=...

The same command again continues, or does nothing, as each of the commands does. The first one that fails ends the run
with its status.
"""

from collections.abc import Iterator, Sequence
import contextlib
import shlex
import subprocess
import sys

from absl import flags

from scripts import choices, cli, common_flags
from scripts.unique_information import recipes_commands, recipes_experiments
from zoo import errors

_SHARED_FLAGS = ("data_dir", "device")
_DEFAULT_OUTDIR = "unique_information"

# The shared flag of this name says an experiment of a zoo.
_EXPERIMENT = flags.DEFINE_list(
    "experiment",
    [],
    f"Some of {', '.join(recipes_experiments.EXPERIMENTS)}; or all. Without it all are printed, and none is run.",
    allow_override=True,
)
_PRINT_COMMANDS = flags.DEFINE_bool("print_commands", False, "Print the commands, and run none.")
_SMALL = flags.DEFINE_bool("small", False, "A form of each experiment on digits, or fewer points, of a minute or so.")
_BODY = flags.DEFINE_string(
    "body",
    None,
    "Prefix of a checkpoint of resnet18_64 with batch normalisation, such as one trained on ImageNet, in the place of "
    "the body that is trained on CIFAR-100.",
)
_OUTDIR = flags.DEFINE_string(
    "outdir", None, f"Folder of the experiments; --print_commands prints {_DEFAULT_OUTDIR} without it."
)


def run(argv: Sequence[str]) -> int:
    """Flags -> experiments -> their commands, printed or run."""
    del argv
    experiments = _experiments(_EXPERIMENT.value)
    outdir = choices.path(_OUTDIR.value) or (_DEFAULT_OUTDIR if _PRINT_COMMANDS.value else None)
    setting = recipes_commands.Setting(
        outdir=choices.required("outdir", outdir),
        small=_SMALL.value,
        data_dir=choices.path(common_flags.DATA_DIR.value),
        device=common_flags.DEVICE.value,
        body=choices.path(_BODY.value),
    )
    if _PRINT_COMMANDS.value:
        print("\n\n".join(_script(experiment, setting) for experiment in experiments))
        return 0
    for experiment in experiments:
        status = _run(experiment, setting)
        if status:
            return status
    return 0


def _experiments(names: list[str]) -> list[recipes_commands.Experiment]:
    """Those that are asked for, in the order of the list.

    Raises:
        InvalidValueError: a name is unknown, or there is none although commands are to be run.
    """
    known = recipes_experiments.EXPERIMENTS
    if not names and not _PRINT_COMMANDS.value:
        raise errors.InvalidValueError(
            f"--experiment is required where commands are run: some of {', '.join(known)}, or all; --print_commands "
            "prints what they would be"
        )
    if not names or names == ["all"]:
        return list(known.values())
    for name in names:
        if name not in known:
            raise errors.InvalidValueError(f"--experiment={name}: expected some of {', '.join(known)}, or all")
    return [known[name] for name in known if name in names]


def _script(experiment: recipes_commands.Experiment, setting: recipes_commands.Setting) -> str:
    """The commands under a heading, as a shell takes them."""
    notes = [experiment.notes] if experiment.notes else []
    heading = [f"# {experiment.name}: {experiment.summary}", *(f"# {note}" for note in notes)]
    return "\n".join([*heading, *(command.text() for command in experiment.commands(setting))])


def _run(experiment: recipes_commands.Experiment, setting: recipes_commands.Setting) -> int:
    """Runs the commands of an experiment; the status of the first that fails, else 0."""
    commands = experiment.commands(setting)
    for number, command in enumerate(commands, start=1):
        print(f"{experiment.name}, {number} of {len(commands)}: {command.text()}", flush=True)
        with _started([sys.executable, "-m", f"scripts.{command.program}", *command.arguments()]) as process:
            status = process.wait()
        if status:
            print(f"{experiment.name}: {command.program} ended with status {status}", file=sys.stderr)
            return status if status > 0 else 128 - status
    print(f"{experiment.name}: done, in {shlex.quote(f'{setting.outdir}/{experiment.name}')}", flush=True)
    return 0


@contextlib.contextmanager
def _started(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """A process that ends with this one, as tidily as it can."""
    process = subprocess.Popen(command)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()


def main() -> None:
    """Console command."""
    cli.launch(__name__, run, _SHARED_FLAGS)


if __name__ == "__main__":
    main()
