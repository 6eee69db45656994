"""Builds image records with an index, for data that does not fit into memory, from folders of images.

    python -m scripts.build_indexed_tfrecords --train_folder=images/train --test_folder=images/test --output=records

reads images/train/<class>/<file> and images/test/<class>/<file>, and writes

    records/train-00000-of-01024, ...       TFRecords: image, label, index, file name
    records/validation-00000-of-00128, ...
    records/labels.npz                      labels by original index
    records/records.json                    what is there, and which images were converted; written last

An example's original index is the rank of its file by class and name, or its place in --index_file, as published for
ImageNet (tr_filenames, tr_labels, tt_filenames, tt_labels). Images that are baseline RGB JPEG are stored byte by byte,
others are converted. Damaged images are named and refused, and what is sound is kept; with --skip_damaged they are left
out, and records.json lists their indices. A healthy build shows a progress bar and ends with lines such as

    1281167 training and 50000 test images of 1000 classes, version 5b1c0f3a9d2e4471
    converted: cmyk 22, grey 19024, png 1
    1152 shards written: records

The same command again continues after a kill, with the same bytes in the end, and does nothing when all is there. Where
the index follows the classes, give --shuffle_seed: shards of single classes mix badly in training.
"""

from collections.abc import Sequence

from absl import flags

from heldout.datasets import indexed_records, record_building, record_format
from heldout.running import workers
from scripts import choices, cli, transfer_bar
from zoo import files

_TRAIN_FOLDER = flags.DEFINE_string("train_folder", None, "Training images, one subfolder per class.")
_TEST_FOLDER = flags.DEFINE_string("test_folder", None, "Test images, one subfolder per class.")
_OUTPUT = flags.DEFINE_string("output", None, "Folder for the records.")
_FORMAT = flags.DEFINE_enum(
    "format",
    "imagenet",
    list(record_format.FORMATS),
    "imagenet: JPEG of any size; tiny: images of one size, kept without loss, as in Tiny-ImageNet.",
)
_INDEX_FILE = flags.DEFINE_string(
    "index_file", None, "npz whose order of file names is the original order. Without it files are ranked by name."
)
_SYNSETS = flags.DEFINE_string(
    "synsets", None, "Text file with the class names in the order of their labels. Without it names are sorted."
)
_NUM_TRAIN_SHARDS = flags.DEFINE_integer(
    "num_train_shards", None, "Training shards; without it 1024 (tiny: 64), or one per image where there are fewer."
)
_NUM_TEST_SHARDS = flags.DEFINE_integer(
    "num_test_shards", None, "Test shards; without it 128 (tiny: 8), or one per image where there are fewer."
)
_SHUFFLE_SEED = flags.DEFINE_integer(
    "shuffle_seed", None, "Deals images to shards at random. Without it each shard holds a range of the original order."
)
_SKIP_DAMAGED = flags.DEFINE_bool("skip_damaged", False, "Leave damaged images out, their indices without a record.")
_NUM_WORKERS = flags.DEFINE_integer("num_workers", None, "Worker processes; without it one for each core.")
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Say what would be written, and write nothing.")


def _config() -> record_building.BuildConfig:
    return record_building.BuildConfig(
        train_folder=choices.required_path("train_folder", _TRAIN_FOLDER.value),
        test_folder=choices.required_path("test_folder", _TEST_FOLDER.value),
        output=choices.required_path("output", _OUTPUT.value),
        format=_FORMAT.value,
        index_file=choices.path(_INDEX_FILE.value),
        synsets=choices.path(_SYNSETS.value),
        num_train_shards=_NUM_TRAIN_SHARDS.value,
        num_test_shards=_NUM_TEST_SHARDS.value,
        shuffle_seed=_SHUFFLE_SEED.value,
        skip_damaged=_SKIP_DAMAGED.value,
        num_workers=workers.num_cores() if _NUM_WORKERS.value is None else _NUM_WORKERS.value,
    )


def run(argv: Sequence[str]) -> int:
    """Flags -> plan -> shards."""
    del argv
    plan = record_building.make_plan(_config())
    for split, listing in plan.listings.items():
        if listing.left_out:
            count = files.count_text(len(listing.left_out), "file")
            print(f"left out: {count} of {split} that are no images: {record_format.named(listing.left_out)}")
    if _DRY_RUN.value:
        _say_plan(plan)
        return 0
    with transfer_bar.shown("images", unit="image") as progress:
        summary = record_building.build(plan, progress)
    _say(plan, summary)
    return 0


def _say_plan(plan: record_building.Plan) -> None:
    pending = record_building.pending_shards(plan)
    print(_sizes(plan))
    print(f"{files.count_text(len(pending), 'shard')} of {len(plan.shards)} would be written: {plan.output}")
    print("\n".join(files.room_report(plan.output, plan.num_bytes(pending))))


def _say(plan: record_building.Plan, summary: record_building.BuildSummary) -> None:
    manifest = summary.manifest
    print(f"{_sizes(plan)}, version {manifest['version']}")
    reasons = [
        f"{reason} {sum(map(len, splits.values()))}" for reason, splits in sorted(manifest["conversions"].items())
    ]
    if reasons:
        print(f"converted: {', '.join(reasons)}")
    for split, indices in manifest["missing"].items():
        if indices:
            print(f"damaged and left out of {split}: {len(indices)}, index {record_format.named(indices)}")
    if summary.up_to_date:
        print(f"up to date, nothing to do: {plan.output}")
    else:
        print(f"{files.count_text(summary.num_written, 'shard')} written: {plan.output}")
    if not any(manifest["missing"].values()):
        cli.say_next("train_runs", f"--dataset={indexed_records.PREFIX}{plan.output}", "--zoo=runs")


def _sizes(plan: record_building.Plan) -> str:
    train, test = (len(plan.listings[split].sources) for split in record_format.SPLITS)
    return f"{train} training and {test} test images of {len(plan.class_names)} classes"


def main() -> None:
    """Console command."""
    cli.launch(__name__, run)


if __name__ == "__main__":
    main()
