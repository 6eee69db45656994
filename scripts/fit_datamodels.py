"""Fits datamodels: for each target example a sparse linear model of what runs put out on it, given their subsets.

    python -m scripts.fit_datamodels --zoo=/tmp/zoo --experiment=digits-mlp --subset_ratio=0.7 --targets=0:100

reads the runs of a zoo and writes <zoo>/<experiment>/scores/datamodels-0.7.npz with, for each target,

    weights     sparse; above 0: training on the example raises the output on the target
    penalty     chosen by cross-validation over runs
    held-out    R^2, correlation, and rank correlation (linear datamodeling score) on runs outside of the fit

The output is the margin of each run, log(p / (1 - p)), where all runs were trained with --margins, else right or wrong
as 1 and 0. After Ilyas et al. (2022). A healthy run, here on the 400 runs of `make demo`, ends with

    100 datamodels written, 8 with weights, output correctness: /tmp/zoo/digits-mlp/scores/datamodels-0.7.npz
    median over those with weights: 6, held-out R^2 0.16, linear datamodeling score 0.35
    predicted better than by the mean of other runs: 8 of 14 whose output varies

and status 0; status 1 if a fit did not reach --tolerance. (86 of the targets are right in all runs or in none.) Margins
vary always, and tell more: with those of 600 runs at ratio 0.5 321 of all 359 targets have weights, and 301 are
predicted better than by the mean.
The same command again does nothing unless runs were added; after a kill it continues with the targets that are left, up
to 16 of which are lost.
"""

from collections.abc import Sequence
import os
import re

from absl import flags

from heldout.scoring import datamodel_files, datamodels
from scripts import choices, cli, common_flags, datamodel_texts, transfer_bar
from zoo import errors, files

_SHARED_FLAGS = ("zoo", "experiment", "device")

_DEFAULTS = datamodel_files.DatamodelConfig(zoo="", experiment="")
_OPTIONS = _DEFAULTS.options

_SUBSET_RATIO = flags.DEFINE_float("subset_ratio", None, "Ratio of the runs; may be left out where there is one.")
_SPLIT = flags.DEFINE_enum("split", _DEFAULTS.split, datamodel_files.SPLITS, "Where the targets are from.")
_TARGETS = flags.DEFINE_string("targets", "all", "Original indices of the targets: all, 7, or 0:100, its end left out.")
_OUTPUT_KIND = flags.DEFINE_enum(
    "output_kind",
    _DEFAULTS.output_kind,
    datamodel_files.OUTPUT_KINDS,
    "What is modelled: margin, correctness, or auto: margins where all runs have them. With margin, runs without are "
    "left out.",
)
_NUM_LAMBDAS = flags.DEFINE_integer("num_lambdas", _OPTIONS.num_lambdas, "Penalties on the path.")
_LAMBDA_RATIO = flags.DEFINE_float("lambda_ratio", _OPTIONS.lambda_ratio, "Smallest penalty over the largest.")
_NUM_FOLDS = flags.DEFINE_integer("num_folds", _OPTIONS.num_folds, "Parts of the runs for cross-validation.")
_TOLERANCE = flags.DEFINE_float(
    "tolerance", _OPTIONS.tolerance, "Duality gap of a fit over the sum of squares of the centred output."
)
_THREADS = flags.DEFINE_integer("threads", None, "Targets fitted at a time; without it one for each core.")
_MEMORY_LIMIT_MB = flags.DEFINE_integer(
    "memory_limit_mb",
    _DEFAULTS.memory_limit_mb,
    "MiB for masks and fits, beside the run table and the margins; fewer threads are used where they would take more.",
)
_OUTPUT = flags.DEFINE_string("output", None, "Folder of the file; without it <zoo>/<experiment>/scores.")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace datamodels that were fitted with other flags.")


def run(argv: Sequence[str]) -> int:
    """Flags -> config -> datamodels. Status 1 if a fit did not reach the tolerance."""
    del argv
    choices.only_cpu(common_flags.DEVICE.value)
    zoo = choices.required_path("zoo", common_flags.ZOO.value)
    config = datamodel_files.DatamodelConfig(
        zoo=zoo,
        experiment=choices.experiment(zoo, common_flags.EXPERIMENT.value),
        subset_ratio=_SUBSET_RATIO.value,
        split=_SPLIT.value,
        targets=_targets(_TARGETS.value),
        output_kind=_OUTPUT_KIND.value,
        options=datamodels.Options(_NUM_LAMBDAS.value, _LAMBDA_RATIO.value, _NUM_FOLDS.value, _TOLERANCE.value),
        threads=len(os.sched_getaffinity(0)) if _THREADS.value is None else _THREADS.value,
        memory_limit_mb=_MEMORY_LIMIT_MB.value,
        output=choices.path(_OUTPUT.value),
        overwrite=_OVERWRITE.value,
    )
    with transfer_bar.shown("fitting", unit="target") as advance:
        summary = datamodel_files.fit_datamodels(config, advance)
    return _report(config, summary)


def _targets(text: str) -> tuple[int, int] | None:
    if text == "all":
        return None
    match = re.fullmatch("([0-9]{1,15})(?::([0-9]{1,15}))?", text)
    if match is None:
        raise errors.InvalidValueError(f"--targets={text}: expected all, an index like 7, or a range like 0:100")
    start = int(match[1])
    return start, start + 1 if match[2] is None else int(match[2])


def _report(config: datamodel_files.DatamodelConfig, summary: datamodel_files.Summary) -> int:
    saved = datamodel_files.load(summary.path)
    models = [model for model in saved.models if len(model.weight)]
    state = "up to date, nothing to do" if summary.up_to_date else "written"
    if summary.num_runs_without:
        print(f"left out: {files.count_text(summary.num_runs_without, 'run')} without margins")
    kind = saved.provenance["output_kind"]
    count = files.count_text(len(saved.models), "datamodel")
    print(f"{count} {state}, {len(models)} with weights, output {kind}: {summary.path}")
    if models:
        print(datamodel_texts.description(saved.models))
    num_least = sum(model.is_least for model in models)
    if num_least:
        print(f"note: {num_least} chose the smallest penalty; a smaller --lambda_ratio might suit them better")
    num_loose = sum(model.relative_gap > config.options.tolerance for model in models)
    if num_loose:
        print(f"not within --tolerance: {files.count_text(num_loose, 'fit')}; relative_gap says by how much")
    return 1 if num_loose else 0


def main() -> None:
    """Console command."""
    cli.launch(__name__, run, _SHARED_FLAGS)


if __name__ == "__main__":
    main()
