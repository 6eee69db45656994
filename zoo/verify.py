"""Is every byte of a zoo right? Holds everything that carries a checksum, or a rule, against it.

    structure     what `zoo.inventory` finds: partial and damaged runs, half checkpoints, names that belong to no zoo
    aux arrays    every record is read again and validated, whatever the run table knows of it
    run table     each row says what the record says that it was read from, and the record is still there
    checkpoints   the checksums of every variable, and all checkpoints hold the same variables
    archive       where the index of the archive lies in the experiment's folder: size and CRC32 of every file in it

Nothing is written, and TensorFlow is not needed. Whether checkpoints fit the architecture is said by
heldout/evaluation/restore_check.py.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
import dataclasses
import pathlib
from typing import Any, Literal
import zlib

import numpy as np

from zoo import checkpoint_bundle, errors, files, inventory, layout, run_scan, run_table, run_table_update
from zoo.archive import index as archive_index

# Given the name of a stage, what of it is done, and all of it.
Progress = Callable[[str, int, int], None]
State = Literal["damaged", "differs", "partial", "outdated", "unknown"]
_CHUNK_BYTES = 1 << 20
_MOST_LISTED = 5
# Written anew by every program that adds runs, so that it rightly differs from the one in an archive.
_NOT_COMPARED = ("run_table", "other")
_REPAIR = "fetch the run again, or train it anew"


@dataclasses.dataclass(frozen=True)
class Finding:
    """Something that is not as it should be.

    Attributes:
        run: whose it is; None for what belongs to the whole experiment.
        path: file or folder.
        state: "damaged"; "differs" where predictions made again are not those recorded; "partial" for runs that are
            not finished, and for those whose record is gone while the run table keeps its row; "outdated" for rows of
            the run table whose record was replaced since, which the next program that reads the table mends;
            "unknown" for what is no part of the experiment.
        reason: a sentence for the user, with the path.
    """

    run: layout.Run | None
    path: str
    state: State
    reason: str

    def to_json(self) -> dict[str, Any]:
        """A JSON object, with the run as subset_ratio and run_id."""
        return {
            "subset_ratio": None if self.run is None else self.run.subset_ratio,
            "run_id": None if self.run is None else self.run.run_id,
            "path": self.path,
            "state": self.state,
            "reason": self.reason,
        }


@dataclasses.dataclass(frozen=True)
class Report:
    """What a verification looked at and found.

    Attributes:
        experiment: its name.
        num_runs: run folders.
        num_records: sound aux arrays.
        num_checkpoints: sound checkpoints.
        num_compared: files held against the index of an archive.
        num_packed: runs of which there never was more here than a row in the run table, as zoo_stream makes it.
        findings: what is not as it should be.
    """

    experiment: str
    num_runs: int
    num_records: int
    num_checkpoints: int
    num_compared: int
    num_packed: int
    findings: list[Finding]

    def count(self, state: State) -> int:
        """Number of findings of a state."""
        return sum(finding.state == state for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        numbers = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return numbers | {"findings": [finding.to_json() for finding in self.findings]}


@dataclasses.dataclass(frozen=True)
class Reading:
    """What a verification would read.

    Attributes:
        num_runs: run folders.
        num_records: aux arrays.
        num_checkpoints: checkpoints of which both files are there.
        num_files: these, halves of checkpoints, recipe, run table, and the index of the archive.
        num_bytes: of these files.
        num_compared: files among them that would be read a second time, for the CRC32 in the index.
    """

    num_runs: int
    num_records: int
    num_checkpoints: int
    num_files: int
    num_bytes: int
    num_compared: int


def reading(zoo: files.PathLike, experiment: str) -> Reading:
    """What `verify_zoo` would read; no file but the index of the archive is opened.

    Raises:
        MissingFileError: there is no such experiment.
    """
    directory = _directory(zoo, experiment)
    runs = layout.runs(zoo, experiment)
    records = [run.aux_arrays_path.stat().st_size for run in runs if run.aux_arrays_path.is_file()]
    checkpoints = [layout.checkpoint_sizes(run) for run in runs]
    names = (layout.RECIPE_NAME, layout.RUN_TABLE_NAME, layout.ARCHIVE_INDEX_NAME)
    others = [path.stat().st_size for path in (directory / name for name in names) if path.is_file()]
    sizes = [*records, *(size for pair in checkpoints for by_epoch in pair for size in by_epoch.values()), *others]
    members, _ = _members_of_archive(zoo, experiment)
    return Reading(
        num_runs=len(runs),
        num_records=len(records),
        num_checkpoints=sum(len(index.keys() & data.keys()) for index, data in checkpoints),
        num_files=len(sizes),
        num_bytes=sum(sizes),
        num_compared=len(members),
    )


def _directory(zoo: files.PathLike, experiment: str) -> pathlib.Path:
    directory = layout.experiment_directory(zoo, experiment)
    if not directory.is_dir():
        raise errors.MissingFileError(f"{directory}: no such folder; check the name of the experiment")
    return directory


def verify_zoo(zoo: files.PathLike, experiment: str, *, progress: Progress | None = None) -> Report:
    """Verifies one experiment; reads every byte of its runs once, and twice where there is an archive's index.

    Args:
        zoo: the folder that holds the experiments.
        experiment: name of the experiment.
        progress: called with the stage ("records", "checkpoints" or "archive"), how many are done and how many there
            are.

    Raises:
        MissingFileError: there is no such experiment.
    """
    directory = _directory(zoo, experiment)
    report: Progress = progress or (lambda stage, done, total: None)
    survey = inventory.survey(zoo, experiment, deep=True, progress=lambda done, total: report("records", done, total))
    runs = layout.runs(zoo, experiment)
    num_packed, gone = _without_record(survey, table_alone=not runs)
    findings = [*_structure(survey.inventory, directory), *gone, *_run_table(survey, experiment, directory)]
    num_checkpoints, of_checkpoints = _checkpoints(runs, report)
    num_compared, of_archive = _archive(zoo, experiment, report)
    return Report(
        experiment=experiment,
        num_runs=len(runs),
        num_records=sum(row.run.aux_arrays_path.exists() for row in survey.rows),
        num_checkpoints=num_checkpoints,
        num_compared=num_compared,
        num_packed=num_packed,
        findings=[*findings, *of_checkpoints, *of_archive],
    )


def _structure(item: inventory.ExperimentInventory, directory: pathlib.Path) -> Iterator[Finding]:
    for ratio in item.ratios:
        for problem in ratio.problems:
            yield Finding(problem.run, str(problem.run.directory), problem.state, problem.reason)
    if item.complaint:
        yield Finding(None, str(directory), "damaged", item.complaint)
    for name in item.unknown:
        path = str(directory / name)
        yield Finding(_run_of(directory, name), path, "unknown", f"{path}: no part of a zoo")


def _run_of(directory: pathlib.Path, name: str) -> layout.Run | None:
    """The run in whose folder an unknown name lies, as in "0.7/3/core"; None for one outside of all runs."""
    ratio_name, _, rest = name.partition("/")
    ratio, run_id = layout.parse_ratio(ratio_name), layout.parse_run_id(rest.partition("/")[0])
    if ratio is None or run_id is None or "/" not in rest:
        return None
    return layout.Run(directory.parent, directory.name, ratio, run_id)


def _without_record(survey: inventory.Survey, *, table_alone: bool) -> tuple[int, list[Finding]]:
    """How many runs are packed in the run table and nowhere else, and those whose record was here and is gone.

    Args:
        survey: of the experiment.
        table_alone: there is no run folder at all, so that the table was meant to be kept alone.
    """
    rows = [row for row in survey.rows if not row.run.aux_arrays_path.exists()]
    # Rows that come from an archive, or with a published table, were read from no file here.
    gone = [] if table_alone else [row.run for row in rows if row.source_mtime_ns]
    reason = (
        f"gone, only its row in {layout.RUN_TABLE_NAME} is left; put the run back, as zoo_fetch does, or leave it so: "
        "scores need no more"
    )
    found = [Finding(run, str(run.aux_arrays_path), "partial", f"{run.aux_arrays_path}: {reason}") for run in gone]
    return len(rows) - len(gone), found


def _run_table(survey: inventory.Survey, experiment: str, directory: pathlib.Path) -> Iterator[Finding]:
    if survey.table is None:
        return
    path = str(directory / layout.RUN_TABLE_NAME)
    if survey.table.experiment != experiment:
        reason = (
            f"{path}: the table of experiment {survey.table.experiment}, found in the folder of {experiment}; rename "
            "the folder, or delete the table to build it from the run folders"
        )
        yield Finding(None, path, "damaged", reason)
    stored = run_table_update.rows_by_run(survey.table, [row.run for row in survey.rows])
    for row in survey.rows:
        if row.run in stored and row.run.aux_arrays_path.exists():
            yield from _row_differences(row, stored[row.run], path)


def _row_differences(row: run_scan.RunRow, stored: run_scan.RunRow, path: str) -> Iterator[Finding]:
    differing = [name for name in run_table.BIT_FIELDS if not np.array_equal(getattr(row, name), getattr(stored, name))]
    if not differing:
        return
    same_source = np.array_equal(row.source_sha256, stored.source_sha256)
    state: State = "damaged" if same_source or not stored.source_sha256.any() else "outdated"
    repair = (
        "the record was replaced since; compute_scores brings the table up to date"
        if state == "outdated"
        else f"delete {path} if the records are right: it is built again from them; or else {_REPAIR}"
    )
    reason = f"{row.run.aux_arrays_path}: the run table says otherwise in {', '.join(differing)}; {repair}"
    yield Finding(row.run, str(row.run.aux_arrays_path), state, reason)


def _checkpoints(runs: Sequence[layout.Run], progress: Progress) -> tuple[int, list[Finding]]:
    """Number of sound checkpoints; the damaged ones and those of other variables than most."""
    found: list[Finding] = []
    prefixes = [(run, run.checkpoint_prefix(epoch)) for run in runs for epoch in layout.checkpoint_epochs(run)]
    listings: dict[tuple[tuple[str, checkpoint_bundle.Spec], ...], list[tuple[layout.Run, pathlib.Path]]] = {}
    for done, (run, prefix) in enumerate(prefixes, start=1):
        try:
            bundle = checkpoint_bundle.verify_files(prefix)
        except (errors.HeldoutError, OSError) as error:
            found.append(Finding(run, str(prefix), "damaged", errors.explain(error)))
        else:
            listing = tuple(checkpoint_bundle.model_listing(bundle).items())
            listings.setdefault(listing, []).append((run, prefix))
        progress("checkpoints", done, len(prefixes))
    found += _odd_ones(listings)
    return len(prefixes) - len(found), found


def _odd_ones(
    listings: Mapping[tuple[tuple[str, checkpoint_bundle.Spec], ...], Sequence[tuple[layout.Run, pathlib.Path]]],
) -> Iterator[Finding]:
    """Checkpoints without variables, or with others than most (or than the first, where as many have others)."""
    if not listings:
        return
    usual = max(listings, key=lambda listing: (bool(listing), len(listings[listing])))
    example = listings[usual][0][1]
    for listing, checkpoints in listings.items():
        for run, prefix in checkpoints:
            if not listing:
                reason = f"{prefix}: no variable below {checkpoint_bundle.MODEL_ROOT}/; {_REPAIR}"
                yield Finding(run, str(prefix), "damaged", reason)
            elif listing != usual:
                differences = _differences(dict(listing), dict(usual))
                reason = f"{prefix}: other variables than in most checkpoints, such as {example}: {differences}; "
                yield Finding(run, str(prefix), "damaged", reason + _REPAIR)


def _differences(here: Mapping[str, checkpoint_bundle.Spec], there: Mapping[str, checkpoint_bundle.Spec]) -> str:
    both = here.keys() & there.keys()
    groups = {
        "only here": sorted(here.keys() - there.keys()),
        "only there": sorted(there.keys() - here.keys()),
        "of another shape or dtype": [
            f"{key} ({here[key]}, there {there[key]})" for key in sorted(both) if here[key] != there[key]
        ],
    }
    return "; ".join(
        f"{len(names)} {what}: {', '.join(names[:_MOST_LISTED])}{', ...' if len(names) > _MOST_LISTED else ''}"
        for what, names in groups.items()
        if names
    )


def _archive(zoo: files.PathLike, experiment: str, progress: Progress) -> tuple[int, list[Finding]]:
    """Number of files held against the index of the archive, if there is one, and those that differ."""
    members, found = _members_of_archive(zoo, experiment)
    for done, (target, member) in enumerate(members, start=1):
        fault = _fault(target, member)
        if fault is not None:
            run = None if member.run is None else layout.Run(pathlib.Path(zoo), experiment, *member.run)
            found.append(Finding(run, str(target), "damaged", fault))
        progress("archive", done, len(members))
    return len(members), found


def _members_of_archive(
    zoo: files.PathLike, experiment: str
) -> tuple[list[tuple[pathlib.Path, archive_index.Member]], list[Finding]]:
    """The files here that the index of the archive knows, and what is wrong with the index; nothing without one."""
    path = layout.archive_index_path(zoo, experiment)
    if not path.exists():
        return [], []
    try:
        with archive_index.Index(path) as index:
            if index.facts.experiment not in ("", experiment):
                reason = f"{path}: an index of {index.facts.experiment}, not of {experiment}; move it there"
                return [], [Finding(None, str(path), "unknown", reason)]
            return list(_members_here(index, path.parent)), []
    except (errors.HeldoutError, OSError) as error:
        return [], [Finding(None, str(path), "damaged", errors.explain(error))]


def _members_here(
    index: archive_index.Index, directory: pathlib.Path
) -> Iterator[tuple[pathlib.Path, archive_index.Member]]:
    """The members that lie in the experiment's folder, and where."""
    for member in index.members():
        if member.parsed is not None and member.parsed.part not in _NOT_COMPARED and member.state != "damaged":
            target = directory / member.parsed.relative
            if target.is_file():
                yield target, member


def _fault(path: pathlib.Path, member: archive_index.Member) -> str | None:
    """What is wrong with a file by its archive's index, None where nothing is."""
    try:
        size = path.stat().st_size
        if size != member.size:
            return f"{path}: {size} bytes, in the archive {member.size}; {_REPAIR}"
        crc32 = _crc32(path)
    except OSError as error:
        return errors.explain(error)
    if crc32 != member.crc32:
        return f"{path}: CRC32 {crc32:08x}, in the archive {member.crc32:08x}; {_REPAIR}"
    return None


def _crc32(path: pathlib.Path) -> int:
    crc32 = 0
    with open(path, "rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            crc32 = zlib.crc32(chunk, crc32)
    return crc32
