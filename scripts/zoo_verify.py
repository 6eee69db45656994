"""Verifies a zoo, or the archive of one: every digest and checksum there is, and that checkpoints can be restored.

    python -m scripts.zoo_verify --zoo=/tmp/zoo

Reads every file of every run, or of one --experiment, and writes nothing. Where the index of an archive lies in the
experiment's folder, sizes and CRC32 of all files are held against it. --restore (on unless --norestore) then restores
every checkpoint into the architecture that the recipe.json, the name of a published experiment, or --arch and --dataset
tell; --predictions=K rebuilds K runs, drawn by --seed, and holds every prediction of theirs against their records,
which needs the data set. A sound zoo prints

    digits-mlp: 400 runs, 400 records and 400 checkpoints sound
      restored: 400 checkpoints into mlp

and the status is 0. What is damaged, or differs from its record, is named with the reason and the repair, and the
status is 3; partial runs, outdated rows of the run table and unknown files are named, too, but are no damage. The
status is 1 where something that was asked for could not be checked.

With --archive=FILE_OR_ADDRESS instead of --zoo, an archive is read once, resumably: its MD5 (known for --experiment, or
stated by the server), CRC32C and gzip checksums, the structure, and each member by its own checksums and by those in
the seek index (--index, else the one beside the archive), which tells precisely which members are damaged. With
--experiment alone that is the published archive of this name. Meanwhile there are work files: in --work_dir, else
beside an archive on this machine, else, or where that folder may not be written to, in the present one.

--dry_run says what either would read, restore, predict and need, and stops.
"""

from collections.abc import Callable, Sequence
import contextlib
import dataclasses
import json
from typing import Any

from absl import flags

from heldout.evaluation import restore_check
from heldout.running import workers
from scripts import archive_flags, archive_verification, choices, cli, common_flags, transfer_bar
from zoo import errors, files, layout, registry, verify

_SHARED_FLAGS = (
    *("zoo", "experiment", "dataset", "data_dir", "device"),
    *archive_flags.READING,
)
_DAMAGE: tuple[verify.State, ...] = ("damaged", "differs")
# What is counted in the stages that do not count runs.
_UNITS = {"checkpoints": "checkpoint", "archive": "file", "restore": "checkpoint"}
# What a `restore_check.Prediction` calls the values of these flags.
_ATTRIBUTES = {"dataset": "dataset", "arch": "architecture"}
_UNCHECKED_STATUS = 1
_NO_BLUEPRINT = (
    "neither a recipe.json nor the experiment's name tells the architecture; give --arch and --dataset, or --norestore"
)

_RESTORE = flags.DEFINE_bool("restore", True, "Restore every checkpoint into the architecture.")
_ARCH = flags.DEFINE_string("arch", None, "Architecture, where no recipe tells; one that does not fit is reported.")
_PREDICTIONS = flags.DEFINE_integer("predictions", 0, "Runs to rebuild and evaluate again.", lower_bound=0)
_SEED = flags.DEFINE_integer("seed", 0, "Which runs --predictions draws.", lower_bound=0)
_FORMAT = flags.DEFINE_enum("format", "text", ["text", "json"], "What to print.")
_INDEX = flags.DEFINE_string("index", None, "Of an archive: seek index to hold its members against, path or address.")
_WORK_DIR = flags.DEFINE_string(
    "work_dir",
    None,
    "Of an archive: folder for the files that a kill leaves and the same command continues. Without it beside an "
    "archive on this machine, if that folder may be written to, else the present folder.",
)
_MAX_PROBLEMS = flags.DEFINE_integer("max_problems", 20, "Findings to name for each experiment.", lower_bound=0)


@dataclasses.dataclass
class _Outcome:
    """What is known of one experiment.

    Attributes:
        report: what needs no TensorFlow.
        findings: all of the report's, and those of restoring and predicting.
        notes: lines on what was restored and predicted, or why it was not.
        unchecked: whether something that was asked for could not be done.
    """

    report: verify.Report
    findings: list[verify.Finding]
    notes: list[str] = dataclasses.field(default_factory=list)
    unchecked: bool = False

    def is_damaged(self) -> bool:
        return any(finding.state in _DAMAGE for finding in self.findings)


def run(argv: Sequence[str]) -> int:
    """Flags -> verification -> text or JSON. Status 3 if anything is damaged."""
    del argv
    if archive_flags.ARCHIVE.value or not common_flags.ZOO.value:
        return _verify_archive()
    for name in ("index", "work_dir"):
        if flags.FLAGS[name].present:
            raise errors.UsageError(f"--{name} is for archives: give --archive, or --experiment without --zoo")
    zoo = choices.required_path("zoo", common_flags.ZOO.value)
    name = common_flags.EXPERIMENT.value
    names = [choices.experiment(zoo, name)] if name or not layout.experiments(zoo) else layout.experiments(zoo)
    return _say_plans(zoo, names) if archive_flags.DRY_RUN.value else _verify_experiments(zoo, names)


def _verify_archive() -> int:
    """One pass over an archive, every member held against the index. Status 3 if anything is damaged."""
    for name in ("zoo", "arch", "dataset", "predictions", "seed", "restore"):
        if flags.FLAGS[name].present and flags.FLAGS[name].value != "":
            reason = "what is in an archive is verified by its checksums, what is in a zoo restored and predicted"
            raise errors.UsageError(f"--{name} is for zoos on this machine, not for an archive: {reason}")
    if not any((archive_flags.ARCHIVE.value, common_flags.EXPERIMENT.value, flags.FLAGS["registry"].present)):
        known = ", ".join(sorted(registry.PUBLISHED))
        raise errors.UsageError(
            "give --zoo (a zoo on this machine), --archive (an archive of one, file or address) or --experiment (the "
            f"published archive of {known}, or of one in --registry); see --help"
        )
    options = archive_verification.Options(
        index=choices.path(_INDEX.value),
        work_dir=choices.path(_WORK_DIR.value),
        as_json=_FORMAT.value == "json",
        max_problems=_MAX_PROBLEMS.value,
    )
    return archive_verification.run(archive_flags.archive(), options)


def _verify_experiments(zoo: str, names: Sequence[str]) -> int:
    outcomes = []
    for name in names:
        outcome = _verify(zoo, name)
        outcomes.append(outcome)
        if _FORMAT.value == "text":
            print(_as_text(outcome), flush=True)
    if _FORMAT.value == "json":
        print(json.dumps([_as_json(outcome) for outcome in outcomes], indent=2))
    if any(outcome.is_damaged() for outcome in outcomes):
        return cli.DAMAGED_STATUS
    return _UNCHECKED_STATUS if any(outcome.unchecked for outcome in outcomes) else 0


def _say_plans(zoo: str, names: Sequence[str]) -> int:
    """What would be read, restored and predicted. Status 1 where something that was asked for could not be."""
    plans = [_plan(zoo, name) for name in names]
    if _FORMAT.value == "json":
        print(json.dumps([plan.to_json() for plan in plans], indent=2))
    else:
        print("\n".join(plan.to_text() for plan in plans))
    return _UNCHECKED_STATUS if any(plan.unchecked for plan in plans) else 0


@dataclasses.dataclass
class _Plan:
    """What a verification of one experiment would do."""

    experiment: str
    reading: verify.Reading
    notes: list[str] = dataclasses.field(default_factory=list)
    unchecked: bool = False

    def to_text(self) -> str:
        reading = self.reading
        parts = [(reading.num_runs, "run"), (reading.num_records, "record"), (reading.num_checkpoints, "checkpoint")]
        lines = [
            f"{self.experiment}: {', '.join(files.count_text(*part) for part in parts)}: "
            f"{files.count_text(reading.num_files, 'file')}, {files.size_text(reading.num_bytes)} would be read"
        ]
        if reading.num_compared:
            compared = files.count_text(reading.num_compared, "file")
            lines.append(f"  would be compared with the index of the archive, read a second time: {compared}")
        return "\n".join([*lines, *(f"  {note}" for note in self.notes)])

    def to_json(self) -> dict[str, Any]:
        numbers = dataclasses.asdict(self.reading)
        return {"experiment": self.experiment} | numbers | {"notes": self.notes, "unchecked": self.unchecked}


def _plan(zoo: str, experiment: str) -> _Plan:
    plan, runs = _Plan(experiment, verify.reading(zoo, experiment)), layout.runs(zoo, experiment)
    for asked, look in ((_RESTORE.value, _plan_restoring), (_PREDICTIONS.value, _plan_predicting)):
        if asked:
            try:
                look(runs, plan)
            except errors.DamagedFileError as error:
                plan.notes.append(f"could not be checked: {error}")
                plan.unchecked = True
    return plan


def _plan_restoring(runs: Sequence[layout.Run], plan: _Plan) -> None:
    if not plan.reading.num_checkpoints:
        return
    blueprint = _blueprint(runs[0])
    if blueprint is None:
        plan.notes.append(f"would not be restored: {_NO_BLUEPRINT}")
        plan.unchecked = True
        return
    by = restore_check.told_by(runs[0].zoo, runs[0].experiment, "arch", _ARCH.value)
    checkpoints = files.count_text(plan.reading.num_checkpoints, "checkpoint")
    plan.notes.append(f"would be restored: {checkpoints} into {blueprint.architecture} ({by})")


def _plan_predicting(runs: Sequence[layout.Run], plan: _Plan) -> None:
    sample = restore_check.sample(runs, _PREDICTIONS.value, _SEED.value)
    dataset = choices.dataset(common_flags.DATASET.value)
    planned = restore_check.plan_prediction(sample, architecture=_ARCH.value, dataset=dataset)
    missing = [f"--{flag}" for flag in ("dataset", "arch") if getattr(planned, _ATTRIBUTES[flag]) is None]
    if not sample or missing:
        plan.unchecked = True
        repair = f"give {' and '.join(missing)}" if sample else "no run has a record and a checkpoint"
        plan.notes.append(f"would not be evaluated again: {repair}")
        return
    number = "the" if planned.num_predictions is None else planned.num_predictions
    by = restore_check.told_by(sample[0].zoo, sample[0].experiment, "dataset", dataset)
    plan.notes.append(
        f"would be evaluated again, if sound: {number} predictions of {_named(sample)} on {planned.dataset} ({by})"
    )


def _verify(zoo: str, experiment: str) -> _Outcome:
    with _bars(experiment) as progress:
        report = verify.verify_zoo(zoo, experiment, progress=progress)
        outcome = _Outcome(report, list(report.findings))
        runs = layout.runs(zoo, experiment)
        for asked, check in ((_RESTORE.value, _restore), (_PREDICTIONS.value, _predict)):
            if asked:
                try:
                    check(runs, outcome, progress)
                except (workers.TaskError, workers.WorkerError, errors.DamagedFileError) as error:
                    outcome.notes.append(f"not checked: {error}")
                    outcome.unchecked = True
    return outcome


def _restore(runs: Sequence[layout.Run], outcome: _Outcome, progress: verify.Progress) -> None:
    if not any(layout.checkpoint_epochs(run) for run in runs):
        return
    plan = _blueprint(runs[0])
    if plan is None:
        outcome.notes.append(f"not restored: {_NO_BLUEPRINT}")
        outcome.unchecked = True
        return
    num_tried, findings = restore_check.restore(
        runs,
        plan,
        skip={finding.path for finding in outcome.findings if finding.state in _DAMAGE},
        device=common_flags.DEVICE.value,
        progress=lambda done, total: progress("restore", done, total),
    )
    checkpoints = files.count_text(num_tried - len(findings), "checkpoint")
    outcome.notes.append(f"restored: {checkpoints} into {plan.architecture}")
    outcome.findings += findings


def _blueprint(run: layout.Run) -> restore_check.Blueprint | None:
    return restore_check.blueprint(
        run.zoo,
        run.experiment,
        architecture=_ARCH.value,
        dataset=choices.dataset(common_flags.DATASET.value),
        data_dir=choices.path(common_flags.DATA_DIR.value),
    )


def _predict(runs: Sequence[layout.Run], outcome: _Outcome, progress: verify.Progress) -> None:
    damaged = {finding.run for finding in outcome.findings if finding.state in _DAMAGE}
    sample = restore_check.sample([run for run in runs if run not in damaged], _PREDICTIONS.value, _SEED.value)
    num_predictions, findings = restore_check.predict(
        sample,
        architecture=_ARCH.value,
        dataset=choices.dataset(common_flags.DATASET.value),
        data_dir=choices.path(common_flags.DATA_DIR.value),
        device=common_flags.DEVICE.value,
        progress=lambda done, total: progress("predictions", done, total),
    )
    outcome.unchecked = outcome.unchecked or not sample
    outcome.notes.append(f"evaluated again: {num_predictions} predictions of {_named(sample)}")
    outcome.findings += findings


def _named(runs: Sequence[layout.Run]) -> str:
    names = ", ".join(f"{layout.ratio_name(run.subset_ratio)}/{run.run_id}" for run in runs) or "none"
    return f"{files.count_text(len(runs), 'run')} ({names})"


def _bars(experiment: str) -> contextlib.AbstractContextManager[Callable[[str, int, int], None]]:
    """A progress bar for each stage."""
    return transfer_bar.stages(lambda stage: f"{experiment}, {stage}", lambda stage: _UNITS.get(stage, "run"))


def _as_text(outcome: _Outcome) -> str:
    report = outcome.report
    runs, records = files.count_text(report.num_runs, "run"), files.count_text(report.num_records, "record")
    checkpoints = files.count_text(report.num_checkpoints, "checkpoint")
    lines = [f"{report.experiment}: {runs}, {records} and {checkpoints} sound"]
    if report.num_packed:
        packed = files.count_text(report.num_packed, "run")
        lines.append(
            f"  packed in {layout.RUN_TABLE_NAME} only: {packed}, with neither record nor checkpoint to verify"
        )
    if report.num_compared:
        lines.append(f"  compared with the index of the archive: {files.count_text(report.num_compared, 'file')}")
    lines += [f"  {note}" for note in outcome.notes]
    findings = sorted(outcome.findings, key=lambda finding: finding.state not in _DAMAGE)
    lines += [f"  {finding.state}: {finding.reason}" for finding in findings[: _MAX_PROBLEMS.value]]
    if len(findings) > _MAX_PROBLEMS.value:
        lines.append(f"  and {len(findings) - _MAX_PROBLEMS.value} more: --max_problems={len(findings)} names them all")
    return "\n".join(lines)


def _as_json(outcome: _Outcome) -> dict[str, Any]:
    return outcome.report.to_json() | {
        "findings": [finding.to_json() for finding in outcome.findings],
        "notes": outcome.notes,
        "damaged": outcome.is_damaged(),
    }


def main() -> None:
    """Console command."""
    cli.launch(__name__, run, _SHARED_FLAGS)


if __name__ == "__main__":
    main()
