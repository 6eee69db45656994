"""Flags of programs that train networks without some examples, and what these do alike: train, with a line of progress.

What these flags say does not decide the networks.
"""

from collections.abc import Callable, Sequence
import contextlib
import sys

from absl import flags

from heldout.training import leave_out_config, leave_out_files
from scripts import choices, common_flags, runner_flags
from scripts.model_training import progress
from scripts.unique_information import truth_dispatch
from zoo import errors

_WORKERS = flags.DEFINE_integer(
    "workers",
    None,
    "Worker processes; without it one for each core on a CPU, else one, or all that a cluster holds.",
    1,
)
_RUNS_PER_GROUP = flags.DEFINE_string(
    "runs_per_group",
    "auto",
    "Networks that a worker trains as one batched computation; auto is what size, device and memory suggest, and 1 "
    "where an architecture has no batched form.",
)
_PROGRESS = flags.DEFINE_bool("progress", True, "Tell on the error stream how far it is.")

# For the list of shared flags of a program, beside those of runner_flags.
NAMES = ("data_dir", "device", "workers", "runs_per_group", "progress")


def how() -> truth_dispatch.HowToTrain:
    """What the flags say.

    Raises:
        InvalidValueError: a value lies outside what is allowed.
    """
    size = choices.integer_or_auto("runs_per_group", _RUNS_PER_GROUP.value)
    if size is not None and size < 1:
        raise errors.InvalidValueError(f"--runs_per_group={size}: expected at least 1, or auto")
    return truth_dispatch.HowToTrain(
        data_dir=choices.path(common_flags.DATA_DIR.value),
        device=common_flags.DEVICE.value,
        runs_per_group=size,
        runner=runner_flags.runner(),
        num_workers=_WORKERS.value,
    )


def line() -> progress.Line:
    """A line of progress, unless none is wanted."""
    return progress.Line(sys.stderr if _PROGRESS.value else None)


def train(
    config: leave_out_config.LeaveOutConfig,
    outdir: str,
    groups: Sequence[leave_out_files.Group],
    how_to_train: truth_dispatch.HowToTrain,
    text: Callable[[int | None, str], str],
) -> bool:
    """Trains what is not there yet: the full network, and those without each group.

    Args:
        config: as it is stored in the folder.
        outdir: folder of the experiment.
        groups: that are to be left out.
        how_to_train: what does not decide the networks.
        text: of the line of progress, given how many groups are begun or done, None for the full network, and the step.

    Returns:
        Whether there was something to train.
    """
    pending = truth_dispatch.pending_groups(outdir, config.sha256, groups)
    if not pending and leave_out_files.read_full_run(outdir, config.sha256) is not None:
        return False
    shown = line()
    try:
        with contextlib.closing(truth_dispatch.compute(config, outdir, groups, how_to_train)) as messages:
            for message in messages:
                if "note" in message:
                    shown.note(message["note"])
                elif "progress" in message:
                    steps, total = message["progress"]
                    before = None if message["task"] == "full" else len(groups) - len(pending) + int(message["task"])
                    shown.show(text(before, f"step {steps} of {total}"))
    finally:
        shown.close()
    return True
