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
the seek index (--index, else the one beside the archive), which tells precisely which members are damaged.
"""

from collections.abc import Callable, Iterator, Sequence
import contextlib
import dataclasses
import json
import pathlib
import tempfile
from typing import Any

from absl import flags
import tqdm

from heldout import restore_check, workers
from scripts import archive_flags, choices, cli, common_flags, transfer_bar
from zoo import errors, files, layout, verify
from zoo.archive import checking, finding, index, scan
from zoo.remote import addresses

_SHARED_FLAGS = (
    *("zoo", "experiment", "dataset", "data_dir", "device"),
    *("archive", "registry", "parallel", "timeout_s", "num_tries", "gcs_token"),
)
_DAMAGE: tuple[verify.State, ...] = ("damaged", "differs")
_UNCHECKED_STATUS = 1

_RESTORE = flags.DEFINE_bool("restore", True, "Restore every checkpoint into the architecture.")
_ARCH = flags.DEFINE_string("arch", None, "Architecture, where no recipe tells; one that does not fit is reported.")
_PREDICTIONS = flags.DEFINE_integer("predictions", 0, "Runs to rebuild and evaluate again.", lower_bound=0)
_SEED = flags.DEFINE_integer("seed", 0, "Which runs --predictions draws.", lower_bound=0)
_FORMAT = flags.DEFINE_enum("format", "text", ["text", "json"], "What to print.")
_INDEX = flags.DEFINE_string("index", None, "With --archive: seek index to hold its members against.")
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
    if archive_flags.ARCHIVE.value:
        return _verify_archive()
    if _INDEX.value is not None:
        raise errors.UsageError("--index goes with --archive; --zoo finds its own")
    zoo = choices.required_path("zoo", common_flags.ZOO.value)
    name = common_flags.EXPERIMENT.value
    names = [choices.experiment(zoo, name)] if name or not layout.experiments(zoo) else layout.experiments(zoo)
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
    plan = restore_check.blueprint(
        runs[0].zoo,
        runs[0].experiment,
        architecture=_ARCH.value,
        dataset=choices.dataset(common_flags.DATASET.value),
        data_dir=choices.path(common_flags.DATA_DIR.value),
    )
    if plan is None:
        outcome.notes.append(
            "not restored: neither a recipe.json nor the experiment's name tells the architecture; give --arch and "
            "--dataset, or --norestore"
        )
        outcome.unchecked = True
        return
    num_tried, findings = restore_check.restore(
        runs,
        plan,
        skip={finding.path for finding in outcome.findings if finding.state in _DAMAGE},
        device=common_flags.DEVICE.value,
        progress=lambda done, total: progress("restore", done, total),
    )
    outcome.notes.append(f"restored: {num_tried - len(findings)} checkpoints into {plan.architecture}")
    outcome.findings += findings


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
    names = ", ".join(f"{layout.ratio_name(run.subset_ratio)}/{run.run_id}" for run in sample) or "none"
    outcome.unchecked = outcome.unchecked or not sample
    outcome.notes.append(f"evaluated again: {num_predictions} predictions of {len(sample)} runs ({names})")
    outcome.findings += findings


@contextlib.contextmanager
def _bars(experiment: str) -> Iterator[Callable[[str, int, int], None]]:
    """A function that shows progress, one bar for each stage."""
    bars: dict[str, tqdm.tqdm] = {}

    def advance(stage: str, done: int, total: int) -> None:
        if stage not in bars:
            for bar in bars.values():
                bar.close()
            bars[stage] = tqdm.tqdm(desc=f"{experiment}, {stage}", total=total, delay=1, leave=False)
        bars[stage].total = total
        bars[stage].update(done - bars[stage].n)

    try:
        yield advance
    finally:
        for bar in bars.values():
            bar.close()


def _as_text(outcome: _Outcome) -> str:
    report = outcome.report
    lines = [
        f"{report.experiment}: {report.num_runs} runs, {report.num_records} records and "
        f"{report.num_checkpoints} checkpoints sound"
    ]
    if report.num_compared:
        lines.append(f"  compared with the index of the archive: {report.num_compared} files")
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


def _verify_archive() -> int:
    """One pass over the archive, every member held against the index. Status 3 if anything is damaged."""
    for name in ("zoo", "arch", "dataset", "predictions", "restore"):
        if flags.FLAGS[name].present:
            raise errors.UsageError(f"--{name} goes with --zoo: what is in an archive is verified by its checksums")
    archive = archive_flags.archive()
    local = addresses.local_path(archive.url)
    folder = pathlib.Path(local).parent if local is not None else pathlib.Path()
    with contextlib.ExitStack() as stack:
        path = _index_of(archive, stack.enter_context(tempfile.TemporaryDirectory()))
        stored = None if path is None else stack.enter_context(index.Index(path))
        progress = stack.enter_context(transfer_bar.shown(archive.name))
        expected = scan.Expected(archive.md5, archive.experiment)
        options = archive_flags.options()
        work = folder / f".{archive.name}.verify"
        check = checking.check(archive.url, work, stored, expected, options, progress)
    if _FORMAT.value == "json":
        print(json.dumps(dataclasses.asdict(check), indent=2))
    else:
        print(_archive_as_text(check, path))
    return cli.DAMAGED_STATUS if check.findings else 0


def _index_of(archive: archive_flags.Archive, folder: str) -> pathlib.Path | None:
    """The index that is named, or that lies or is published beside the archive; None where there is none."""
    named = choices.path(_INDEX.value)
    try:
        # No zoo is meant: only what is named, or beside the archive, counts.
        return finding.index_path(archive.url, folder, "none", named, archive_flags.options(), download_to=folder)
    except errors.MissingFileError:
        if named is not None:
            raise
        return None


def _archive_as_text(check: checking.Check, path: pathlib.Path | None) -> str:
    facts = check.facts
    digest = f"MD5 {facts.md5}" if facts.md5 is not None else f"CRC32C {facts.crc32c:08x}"
    against = "no index to compare with" if path is None else f"compared with {path}"
    num_faulty = sum(found.name is not None for found in check.findings)
    num_without = check.num_members - check.num_proved - num_faulty
    without = f", {num_without} without any" if num_without > 0 else ""
    lines = [
        f"{facts.name}: {files.size_text(facts.size)}, {digest}",
        f"  {facts.checked}",
        f"  {check.num_members} files, {check.num_proved} proved right by their checksums{without}, {against}",
        "  not restored: fetch runs with zoo_fetch and verify them with --zoo",
    ]
    for found in check.findings[: _MAX_PROBLEMS.value]:
        lines.append(f"  {found.reason}" if found.name is None else f"  {found.name}: {found.reason}")
    if len(check.findings) > _MAX_PROBLEMS.value:
        num = len(check.findings)
        lines.append(f"  and {num - _MAX_PROBLEMS.value} more: --max_problems={num} names them all")
    return "\n".join(lines)


def main() -> None:
    """Console command."""
    cli.launch(__name__, run, _SHARED_FLAGS)


if __name__ == "__main__":
    main()
