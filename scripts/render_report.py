"""Writes the HTML report and its PNG figures from saved scores.

    python -m scripts.render_report --zoo=/tmp/zoo

reads <zoo>/<experiment>/scores and the images of the data set, and writes into <zoo>/<experiment>/report

    report.html    one self-contained page: histograms, reliability, galleries whose images lead on to whom they
                   influence, tables that sort and filter
    figures/*.png  the same charts as pictures

and prints the path of the page. The data set is that of the zoo's recipe, or --dataset; where neither can be found the
page has no images. The same command again does nothing unless scores or options have changed.
"""

from collections.abc import Sequence
import pathlib

from absl import flags

from heldout import report
from heldout.experiments import recipes
from scripts import choices, cli, common_flags, terminal
from zoo import layout

_SHARED_FLAGS = ("zoo", "experiment", "dataset", "data_dir", "device")

_DEFAULTS = report.PageOptions()

_SCORES = flags.DEFINE_string("scores", None, "Folder of the scores; without it <zoo>/<experiment>/scores.")
_OUTPUT = flags.DEFINE_string("output", None, "Folder of the report; without it <zoo>/<experiment>/report.")
_SUBSET_RATIO = flags.DEFINE_float("subset_ratio", None, "Ratio to show; without it the one with the most runs.")
_TITLE = flags.DEFINE_string("title", None, "Heading of the page; without it the name of the experiment.")
_NUM_GALLERY = flags.DEFINE_integer("num_gallery", _DEFAULTS.num_gallery, "Images in each gallery.")
_NUM_STORIES = flags.DEFINE_integer(
    "num_stories", _DEFAULTS.num_stories, "Test images shown with what influences them."
)
_NUM_EFFECTS = flags.DEFINE_integer("num_effects", _DEFAULTS.num_effects, "Training images on either side of each.")
_NUM_PANELS = flags.DEFINE_integer(
    "num_panels",
    _DEFAULTS.num_panels,
    "Examples with a panel of their own, which a click on their image opens. Images that only panels show are left out "
    "beyond 16 MiB.",
)
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace a report that was made with other flags.")


def run(argv: Sequence[str]) -> int:
    """Flags -> config -> report."""
    del argv
    choices.only_cpu(common_flags.DEVICE.value)
    zoo = choices.required_path("zoo", common_flags.ZOO.value)
    experiment = choices.experiment(zoo, common_flags.EXPERIMENT.value)
    dataset = choices.dataset(common_flags.DATASET.value) or recipes.default_dataset(zoo, experiment)
    config = report.ReportConfig(
        scores=str(pathlib.Path(choices.path(_SCORES.value) or layout.scores_directory(zoo, experiment))),
        output=str(pathlib.Path(choices.path(_OUTPUT.value) or layout.report_directory(zoo, experiment))),
        dataset=dataset,
        data_dir=choices.path(common_flags.DATA_DIR.value),
        zoo=zoo,
        subset_ratio=_SUBSET_RATIO.value,
        options=report.PageOptions(
            title=_TITLE.value,
            num_gallery=_NUM_GALLERY.value,
            num_stories=_NUM_STORIES.value,
            num_effects=_NUM_EFFECTS.value,
            num_panels=_NUM_PANELS.value,
        ),
        overwrite=_OVERWRITE.value,
    )
    terminal.quiet_tensorflow(dataset)
    result = report.render(config)
    if dataset is None:
        print("no data set was given or found: the report has no images (--dataset adds them, with --overwrite)")
    print("up to date, nothing to do" if result.up_to_date else f"written, with {len(result.png_paths)} figures")
    print(result.html_path)
    return 0


def main() -> None:
    """Console command."""
    cli.launch(__name__, run, _SHARED_FLAGS)


if __name__ == "__main__":
    main()
