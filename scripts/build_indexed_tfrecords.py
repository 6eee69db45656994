"""Builds image records with an index, for data that does not fit into memory, from folders of images.

    python -m scripts.build_indexed_tfrecords --train_folder=images/train --test_folder=images/test --output=records

reads images/train/<class>/<file> and images/test/<class>/<file>, and writes

    records/train-00000-of-01500, ...       TFRecords: image, label, index, file name
    records/validation-00000-of-00067, ...
    records/labels.npz                      labels by original index
    records/records.json                    what is there, and which images were converted; written last

An example's original index is the rank of its file by class and name, or its place in --index_file, as published for
ImageNet (tr_filenames, tr_labels, tt_filenames, tt_labels). Images that are baseline RGB JPEG are stored byte by byte,
others are converted. Damaged images are named and refused, and what is sound is kept. With --skip_damaged they are left
out, records.json names them, and the others are numbered as if they had never been there; with --index_file, whose
indices are not ours to choose, theirs stay without a record, and such records can be read but not trained on. A healthy
build shows a progress bar and ends with lines such as

    1281167 training and 50000 test images of 1000 classes, version 5b1c0f3a9d2e4471
    converted to RGB JPEG: cmyk 22, grey 19024, png 1
    1567 shards written: records

The same command again continues after a kill, with the same bytes in the end, and does nothing when all is there. Where
the index follows the classes, give --shuffle_seed: shards of single classes mix badly in training.
"""

from collections.abc import Sequence

from absl import flags

from heldout.datasets import indexed_records, record_building, record_format, record_plan
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
    "num_train_shards",
    None,
    "Training shards; without it as many as hold 1000 images or 100 MB each, and for ImageNet (Tiny-ImageNet) in the "
    "order of its --index_file the published 1024 (64).",
)
_NUM_TEST_SHARDS = flags.DEFINE_integer(
    "num_test_shards", None, "Test shards; without it likewise, the published number being 128 (8)."
)
_SHUFFLE_SEED = flags.DEFINE_integer(
    "shuffle_seed", None, "Deals images to shards at random. Without it each shard holds a range of the original order."
)
_SKIP_DAMAGED = flags.DEFINE_bool(
    "skip_damaged",
    False,
    "Leave damaged images out and number the others without gaps. With --index_file their indices stay without a "
    "record: such records can be read, but not trained on.",
)
_NUM_WORKERS = flags.DEFINE_integer("num_workers", None, "Worker processes; without it one for each core.")
_DRY_RUN = flags.DEFINE_bool(
    "dry_run", False, "Say what would be written, read every image for damage, and write nothing."
)
_CONVERTED_TO = {"imagenet": "RGB JPEG", "tiny": "plain RGB pixels"}
_ADJECTIVES = {record_format.TRAIN: "training", record_format.TEST: "test"}


def _config() -> record_plan.BuildConfig:
    return record_plan.BuildConfig(
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
    """Flags -> plan -> shards. Status 1 if a dry run finds damaged images that would be refused."""
    del argv
    plan = record_plan.make_plan(_config())
    for split, listing in plan.listings.items():
        if listing.left_out:
            count = files.count_text(len(listing.left_out), "file")
            print(f"left out: {count} of {split} that are no images: {record_format.named(listing.left_out)}")
    if _DRY_RUN.value:
        return _say_plan(plan)
    with transfer_bar.shown("images", unit="image") as progress:
        summary = record_building.build(plan, progress)
    _say(plan, summary)
    return 0


def _say_plan(plan: record_plan.Plan) -> int:
    """What a dry run says; 1 if the build would be refused."""
    pending = record_building.pending_shards(plan)
    print(_sizes(plan, {split: len(listing.sources) for split, listing in plan.listings.items()}))
    print(f"{files.count_text(len(pending), 'shard')} of {len(plan.shards)} would be written: {plan.output}")
    print("\n".join(files.room_report(plan.output, plan.num_bytes(pending))))
    with transfer_bar.shown("images", unit="image") as progress:
        damaged = record_building.find_damaged(plan, progress)
    if not damaged:
        return 0
    what = "left out" if _SKIP_DAMAGED.value else "refused; --skip_damaged would leave them out"
    print(f"{files.count_text(len(damaged), 'damaged image')}, which would be {what}:")
    print("\n".join(sorted(one.reason for one in damaged)))
    return 0 if _SKIP_DAMAGED.value else 1


def _say(plan: record_plan.Plan, summary: record_building.BuildSummary) -> None:
    manifest = summary.manifest
    missing, left_out = manifest["missing"], manifest.get("left_out", {})
    stored = {split: manifest[f"num_{split}"] - len(missing[split]) for split in record_format.SPLITS}
    print(f"{_sizes(plan, stored)}, version {manifest['version']}")
    reasons = [
        f"{reason} {sum(map(len, splits.values()))}" for reason, splits in sorted(manifest["conversions"].items())
    ]
    if reasons:
        print(f"converted to {_CONVERTED_TO[plan.format.name]}: {', '.join(reasons)}")
    for split, paths in left_out.items():
        if paths:
            count = files.count_text(len(paths), f"{_ADJECTIVES[split]} image")
            print(f"damaged and left out, the others numbered without gaps: {count}: {record_format.named(paths)}")
    for split, indices in missing.items():
        if indices:
            print(f"damaged and left out: {record_format.missing_text(split, indices)}")
    if summary.up_to_date:
        print(f"up to date, nothing to do: {plan.output}")
    else:
        print(f"{files.count_text(summary.num_written, 'shard')} written: {plan.output}")
    if any(missing.values()):
        print("these records can be read, but programs neither train nor evaluate on them: examples have no record")
    else:
        cli.say_next("train_runs", f"--dataset={indexed_records.PREFIX}{plan.output}", "--zoo=runs")


def _sizes(plan: record_plan.Plan, number: dict[str, int]) -> str:
    counts = [number[split] for split in record_format.SPLITS]
    return f"{counts[0]} training and {files.count_text(counts[1], 'test image')} of {len(plan.class_names)} classes"


def main() -> None:
    """Console command."""
    cli.launch(__name__, run)


if __name__ == "__main__":
    main()
