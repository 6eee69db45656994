"""Writes the report of an experiment: one HTML file that stands alone, and its charts as PNG files beside it.

    <output>/report.html       the page: images, style and script are inside, nothing is fetched
    <output>/figures/*.png     the charts
    <output>/report.json       the options, a digest of everything the page was made from, and digests of the files

Everything is made before the first file is written, and report.json is written last: a report without it is
unfinished and made again. With the same options and scores nothing is done.
"""

from collections.abc import Mapping
import dataclasses
import hashlib
import json
import pathlib
import re
from typing import Any

import numpy as np

from heldout.datasets import dataset as dataset_lib
from heldout.datasets import registry
from heldout.experiments import recipes
from heldout.report import dataset_view, page, selection
from heldout.scoring import reliability_files, saved_scores
from zoo import errors, files

SCHEMA_VERSION = 1
PAGE_NAME = "report.html"
RECORD_NAME = "report.json"
_CHART_NAME = re.compile(r"figures/[a-z_]+\.png")
_MARK = '<meta name="generator" content="heldout report">'


@dataclasses.dataclass(frozen=True)
class ReportConfig:
    """One report.

    Attributes:
        scores: folder of the score files.
        output: folder of the report.
        dataset: name for `heldout.datasets.registry.load`, for images and class names; None for a report without.
        data_dir: where prepared data sets lie; None for the default.
        zoo: folder of the experiments, whose recipe tells of labels that were changed on purpose; None for none.
        subset_ratio: which ratio to show; None for the one with the most runs, of equals the nearest to 0.7.
        options: sizes, thresholds and title of the page.
        overwrite: replace a report that was made with other options.
    """

    scores: str
    output: str
    dataset: str | None = None
    data_dir: str | None = None
    zoo: str | None = None
    subset_ratio: float | None = None
    options: page.PageOptions = dataclasses.field(default_factory=page.PageOptions)
    overwrite: bool = False


@dataclasses.dataclass(frozen=True)
class ReportResult:
    """Where the report lies; `up_to_date` is True if it was there already and nothing was written."""

    html_path: pathlib.Path
    png_paths: tuple[pathlib.Path, ...]
    up_to_date: bool


def render(config: ReportConfig) -> ReportResult:
    """Makes the report, or does nothing where it is there already.

    Raises:
        MissingFileError: there are no scores, or the data set is not on this machine.
        InvalidValueError: an option is out of range, or the ratio was not scored.
        MismatchError: the folder holds a report with other options or a page of another origin and `overwrite` is
            not set, or the data set is not the one behind the scores.
        DamagedFileError: a score file, reliability.json or the record of the report cannot be read, or the influence
            matrix shown fails its checksum.
    """
    return render_scores(saved_scores.load(config.scores), config)


def render_scores(saved: saved_scores.SavedScores, config: ReportConfig) -> ReportResult:
    """`render` for scores that are loaded already."""
    check_options(config.options)
    output = pathlib.Path(config.output)
    scores = selection.ratio_scores(saved, config.subset_ratio)
    shown = registry.identify(config.dataset) if config.dataset else None
    reliable = reliability_files.read(saved.directory, saved.provenance)
    options, digest = _options(config, saved.experiment, shown), _digest(saved, shown, reliable)
    record = _read_record(output, options, config.overwrite)
    if record is not None and record["options"] == options and record["digest"] == digest and _intact(output, record):
        return _result(output, record["files"], up_to_date=True)
    dataset = _load(config, saved.experiment) if config.dataset else None
    built = page.build(saved, scores, dataset_view.view(saved, dataset), config.options, reliable)
    contents = {f"figures/{chart.name}.png": chart.png for chart in built.charts}
    contents[PAGE_NAME] = built.html.encode("utf-8")
    _write(output, contents, options, digest)
    _remove_stale(output, record, contents)
    return _result(output, contents, up_to_date=False)


def _load(config: ReportConfig, experiment: str) -> dataset_lib.Dataset:
    """The data set to show, with the labels that the runs were trained with."""
    assert config.dataset is not None
    if config.zoo is None:
        return registry.load(config.dataset, config.data_dir)
    return recipes.load_dataset(config.zoo, experiment, config.dataset, config.data_dir)


def check_options(options: page.PageOptions) -> None:
    """Raises InvalidValueError where a size or threshold is out of range."""
    for name in ("num_gallery", "num_stories", "num_effects", "max_pairs", "max_examples"):
        if getattr(options, name) < 1:
            raise errors.InvalidValueError(f"{name} {getattr(options, name)}: must be at least 1")
    if options.num_panels < 0:
        raise errors.InvalidValueError(f"num_panels {options.num_panels}: must be at least 0")
    if not 0 < options.pairs_influence <= 1:
        raise errors.InvalidValueError(f"pairs_influence {options.pairs_influence}: must be above 0 and at most 1")
    if not -1 <= options.pairs_memorization <= 1:
        raise errors.InvalidValueError(f"pairs_memorization {options.pairs_memorization}: must be between -1 and 1")


def _options(config: ReportConfig, experiment: str, shown: tuple[str, str] | None) -> dict[str, Any]:
    """What decides about the page apart from the scores, as JSON would give it back; no paths, so a zoo can move."""
    options = dataclasses.asdict(config)
    for name in ("scores", "output", "overwrite", "data_dir", "zoo"):
        del options[name]
    options["experiment"] = experiment
    options["dataset"] = None if shown is None else shown[0]
    return dict(json.loads(json.dumps(options)))


def _digest(
    saved: saved_scores.SavedScores,
    shown: tuple[str, str] | None,
    reliable: reliability_files.SavedReliability | None,
) -> str:
    """SHA-256 over provenance, every array but the two large matrices, the data set shown, and this package's files.

    The matrices are left out because reading them takes as long as making the page; the digest of the run table in
    the provenance stands for them, and their checksums are verified when a page is made. Name and version of the data
    set stand for its images; the version of an npz file is its digest.
    """
    digest = hashlib.sha256()
    digest.update(json.dumps(shown).encode())
    digest.update(json.dumps([SCHEMA_VERSION, saved.experiment, saved.schema_version]).encode())
    digest.update(json.dumps(dict(saved.provenance), sort_keys=True, default=str).encode())
    for scores in saved.ratios.values():
        digest.update(json.dumps([scores.subset_ratio, scores.num_runs, dataclasses.asdict(scores.memorized)]).encode())
        _update(digest, dataclasses.asdict(scores.memorization))
        _update(digest, {name: getattr(scores, name) for name in ("accuracy_in", "accuracy_heldout", "test_accuracy")})
    _update(digest, dataclasses.asdict(saved.consistency))
    _update(digest, {"train_label": saved.train_label, "test_label": saved.test_label})
    if reliable is not None:
        digest.update(json.dumps(reliability_files.to_json(reliable, {}), sort_keys=True).encode())
    for path in sorted([*page.TEMPLATES.iterdir(), *page.TEMPLATES.parent.glob("*.py")]):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _update(digest: Any, arrays: Mapping[str, np.ndarray | None]) -> None:
    for name, array in arrays.items():
        values = np.zeros(0) if array is None else np.ascontiguousarray(array)
        digest.update(f"{name} {values.dtype.str} {values.shape}".encode())
        digest.update(values.tobytes())


def _read_record(output: pathlib.Path, options: Mapping[str, Any], overwrite: bool) -> dict[str, Any] | None:
    """The record of the report that is there, or None; refuses what must not be overwritten."""
    html_path, record_path = output / PAGE_NAME, output / RECORD_NAME
    if not record_path.exists():
        if not overwrite and html_path.exists() and _MARK not in html_path.read_text("utf-8", errors="replace")[:4096]:
            raise errors.MismatchError(
                f"{html_path}: this page was not made by the report; choose another --output, or pass --overwrite"
            )
        return None
    record = files.read_json(record_path)
    expected = {"schema_version": int, "options": dict, "digest": str, "files": dict}
    if any(not isinstance(record.get(name), kind) for name, kind in expected.items()):
        raise errors.DamagedFileError(
            f"{record_path}: expected the keys {', '.join(expected)}; delete it and run the command again"
        )
    if isinstance(chosen := record["options"].get("options"), dict):  # a record from before an option was there
        record["options"]["options"] = dataclasses.asdict(page.PageOptions()) | chosen
    if not overwrite and record["options"] != options:
        raise errors.MismatchError(
            f"{output}: holds a report with other options\n  there: {json.dumps(record['options'], sort_keys=True)}\n"
            f"  asked: {json.dumps(options, sort_keys=True)}\nchoose another --output, or pass --overwrite"
        )
    return record


def _intact(output: pathlib.Path, record: Mapping[str, Any]) -> bool:
    """Whether every file of the report is there, with the bytes that were written."""
    return record["schema_version"] == SCHEMA_VERSION and all(
        (output / name).is_file() and files.sha256_of_file(output / name) == digest
        for name, digest in record["files"].items()
    )


def _write(output: pathlib.Path, contents: Mapping[str, bytes], options: Mapping[str, Any], digest: str) -> None:
    """Writes charts, page and record, in this order; without its record a report counts as unfinished."""
    (output / RECORD_NAME).unlink(missing_ok=True)
    for name, content in contents.items():
        with files.write_whole(output / name) as path:
            path.write_bytes(content)
    record = {
        "schema_version": SCHEMA_VERSION,
        "options": dict(options),
        "digest": digest,
        "files": {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()},
    }
    files.write_json(output / RECORD_NAME, record)


def _remove_stale(output: pathlib.Path, record: Mapping[str, Any] | None, contents: Mapping[str, bytes]) -> None:
    """Removes the charts of the report before that this one does not have."""
    for name in record["files"] if record else ():
        if _CHART_NAME.fullmatch(name) and name not in contents:
            (output / name).unlink(missing_ok=True)


def _result(output: pathlib.Path, names: Mapping[str, Any], *, up_to_date: bool) -> ReportResult:
    charts = tuple(output / name for name in names if name.endswith(".png"))
    return ReportResult(output / PAGE_NAME, charts, up_to_date)
