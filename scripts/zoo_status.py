"""Tells how far the runs of a zoo are, while trainings go on: from another terminal, or another machine.

    python -m scripts.zoo_status --zoo=/tmp/zoo

looks at the folders and at what trainings say of themselves, and prints

    digits-mlp: 112 of 400 runs complete, 16 in the making, 272 waiting
      4114 runs/h over the last 98 s, 4 min left
      training by process 4711 on ada, running for 98 s
        0.7/112:120 in the making for 3 s by process 4720 on ada
        0.7/120:128 in the making for 2 s by process 4721 on ada

--watch repeats it until no training goes on any more, and waits for one that has not begun. Failed runs are named with
the command that trains each alone; runs that were begun, and that nobody says to be training, with the time of their
last change. Nothing is written, and no record is opened: whether the complete runs are sound is what list_zoo tells.
"""

from collections.abc import Sequence
import json
import pathlib
import sys
import time

from absl import flags

from heldout.experiments import training_files
from heldout.watching import training_status
from scripts import choices, cli, common_flags, training_texts
from zoo import files, layout

_SHARED_FLAGS = ("zoo", "experiment")

_FORMAT = flags.DEFINE_enum(
    "format", "text", ["text", "json"], "What to print; with --watch, JSON is a line each time."
)
_WATCH = flags.DEFINE_bool("watch", False, "Repeat until no training goes on any more.")
_EVERY_S = flags.DEFINE_float("every_s", 5.0, "With --watch: seconds between two looks.", lower_bound=0.1)
_MAX_NAMED = flags.DEFINE_integer(
    "max_named", 10, "Groups, failed and unfinished runs to name for each experiment.", lower_bound=0
)

_CLEAR_SCREEN = "\033[H\033[J"


def run(argv: Sequence[str]) -> int:
    """Flags -> status -> text or JSON, once or until the end."""
    del argv
    zoo = choices.required_path("zoo", common_flags.ZOO.value)
    if _WATCH.value:
        _wait_for(zoo, common_flags.EXPERIMENT.value)
    while True:
        name = common_flags.EXPERIMENT.value
        names = layout.experiments(zoo) if name is None else []
        statuses = [training_status.take(zoo, each) for each in names or [choices.experiment(zoo, name)]]
        _show(statuses)
        if not _WATCH.value or not any(status.is_running for status in statuses):
            return 0
        time.sleep(_EVERY_S.value)


def _wait_for(zoo: str, experiment: str | None) -> None:
    """Returns when the experiment is there: a training that has just been started takes some seconds to make it."""
    told = False
    while not _is_there(zoo, experiment):
        if not told:
            print(f"{zoo}: waiting for {experiment or 'an experiment'}", file=sys.stderr, flush=True)
            told = True
        time.sleep(_EVERY_S.value)


def _is_there(zoo: str, experiment: str | None) -> bool:
    there = layout.experiments(zoo) if pathlib.Path(zoo).is_dir() else []
    return bool(there) if experiment is None else experiment in there


def _show(statuses: list[training_status.Status]) -> None:
    if _FORMAT.value == "json":
        print(json.dumps([status.to_json() for status in statuses], indent=None if _WATCH.value else 2), flush=True)
        return
    clear = _CLEAR_SCREEN if _WATCH.value and sys.stdout.isatty() else ""
    end = "\n\n" if _WATCH.value and not clear else "\n"
    print(clear + "\n\n".join("\n".join(_lines(status)) for status in statuses), end=end, flush=True)


def _lines(status: training_status.Status) -> list[str]:
    lines = [f"{status.experiment}: {_summary(status)}"]
    if status.runs_per_hour is not None and status.window_s is not None and status.left_s is not None:
        window, left = training_texts.duration(status.window_s), training_texts.duration(status.left_s)
        lines.append(f"  {training_texts.rate(status.runs_per_hour)} over the last {window}, {left} left")
    if len(status.counts) > 1:
        lines += _table(status)
    groups = []
    for watched in status.trainings:
        lines.append(f"  {_training(watched)}")
        if watched.state == "running":
            groups += [f"    {_group(group)}" for group in watched.training.groups]
    lines += _limited(groups, "group")
    lines += _limited([f"  {training_texts.failure(failed)}" for failed in status.failures], "failed run")
    lines += _limited([f"  {_unfinished(each)}" for each in status.unfinished], "unfinished run")
    return lines


def _summary(status: training_status.Status) -> str:
    complete, expected = status.count("complete"), status.num_expected
    total = sum(status.count(state) for state in training_status.STATES)
    # Runs that no training was asked for are complete or begun besides.
    of_all = f" of {total}" if expected is not None else ""
    others = [f"{status.count(state)} {state}" for state in training_status.STATES[1:] if status.count(state)]
    noun = "run" if complete == 1 and not of_all else "runs"
    return ", ".join([f"{complete}{of_all} {noun} complete", *others])


def _table(status: training_status.Status) -> list[str]:
    lines = ["  ratio   " + "   ".join(training_status.STATES)]
    for ratio, counts in status.counts.items():
        cells = [f"{counts[state]:>{len(state)}}" for state in training_status.STATES]
        lines.append(f"  {layout.ratio_name(ratio):<5}   {'   '.join(cells)}")
    return lines


def _training(watched: training_status.WatchedTraining) -> str:
    training = watched.training
    who = f"training by process {training.process} on {training.host}"
    if watched.state == "ended" and training.ended is not None:
        ago = training_texts.duration(_age(training.ended))
        by_itself = training.end == "interrupted" or str(training.end).endswith("came to nothing")
        again = "the same command continues" if by_itself else "once that is mended, the same command continues"
        return f"{who}, ended {ago} ago: {training.end}; {again}"
    if watched.state == "lost":
        return f"{who}, gone; last heard of {training_texts.duration(watched.heard_s)} ago; the same command continues"
    here = training.machine == files.machine()
    heard = "" if here else f", last heard of {training_texts.duration(watched.heard_s)} ago"
    return f"{who}, running for {training_texts.duration(_age(training.began))}{heard}"


def _group(group: training_files.Group) -> str:
    ranges = ",".join(choices.id_ranges(group.run_ids))
    since = training_texts.duration(_age(group.began))
    where = f"process {group.process} on {group.host}"
    return f"{layout.ratio_name(group.subset_ratio)}/{ranges} in the making for {since} by {where}"


def _unfinished(run: training_status.Unfinished) -> str:
    name = f"{layout.ratio_name(run.subset_ratio)}/{run.run_id}"
    return f"unfinished: {name}, last change {training_texts.duration(run.changed_s)} ago"


def _limited(lines: list[str], noun: str) -> list[str]:
    more = len(lines) - _MAX_NAMED.value
    shown = lines[: _MAX_NAMED.value]
    return [*shown, f"  and {files.count_text(more, f'more {noun}')}"] if more > 0 else shown


def _age(moment: str) -> float:
    return max(0.0, time.time() - training_status.seconds(moment))


def main() -> None:
    """Console command."""
    cli.launch(__name__, run, _SHARED_FLAGS)


if __name__ == "__main__":
    main()
