"""The program that builds image records, as a user starts it; and a zoo trained on what it has built."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest

from tests.heldout.datasets import image_cases

_ROOT = pathlib.Path(__file__).parents[2]


def start(program, *arguments):
    return subprocess.run(
        [sys.executable, "-m", f"scripts.{program}", *arguments], capture_output=True, text=True, cwd=_ROOT, check=False
    )


def build(root, output, *arguments):
    folders = (f"--train_folder={root}/train", f"--test_folder={root}/test")
    return start("build_indexed_tfrecords", *folders, f"--output={output}", *arguments)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    image_cases.write_folders(root, 60, 20)
    (root / "train" / "class0" / "notes.txt").write_text("no image")
    return root


@pytest.fixture(scope="module")
def records(images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "records"
    result = build(images, folder, "--format=tiny")
    assert result.returncode == 0, result.stderr
    return folder, result.stdout


def test_a_build_says_what_it_did(records):
    folder, said = records
    assert "left out: 1 file of train that are no images: class0/notes.txt\n" in said
    assert "60 training and 20 test images of 10 classes, version " in said
    assert f"2 shards written: {folder}\nnext: python -m scripts.train_runs --dataset=records:{folder}" in said


def test_the_same_command_again_does_nothing(images, records):
    again = build(images, records[0], "--format=tiny")
    assert again.returncode == 0
    assert f"up to date, nothing to do: {records[0]}" in again.stdout


def test_other_options_are_refused(images, records):
    result = build(images, records[0])
    assert result.returncode == 2
    assert "holds records of other images or other options" in result.stderr


def test_a_dry_run_writes_nothing(images, tmp_path):
    result = build(images, tmp_path / "records", "--dry_run", "--num_train_shards=7", "--num_test_shards=1")
    assert result.returncode == 0
    assert "8 shards of 8 would be written" in result.stdout
    assert "at most are needed" in result.stdout
    assert "damaged" not in result.stdout
    assert not list(tmp_path.iterdir())


@pytest.fixture
def damaged(tmp_path):
    """Folders with one damaged test image, and its name."""
    listed = image_cases.write_folders(tmp_path, 20, 10, "jpeg", (40, 30), ".JPEG")
    name = listed["test"][3][0]
    image_cases.rewrite(tmp_path, "test", name, "truncated")
    return tmp_path, name


def test_damaged_images_are_refused_or_left_out(damaged):
    root, name = damaged
    tried = build(root, root / "records", "--num_workers=1", "--dry_run")
    assert tried.returncode == 1
    assert "1 damaged image, which would be refused; --skip_damaged would leave them out:\n" in tried.stdout
    refused = build(root, root / "records", "--num_workers=1")
    assert refused.returncode == 1
    assert refused.stderr.count("error: 1 damaged image:\n") == 1
    for said in (refused.stderr, tried.stdout):
        assert f"{root}/test/{name}: not a sound image (" in said
    assert "Traceback" not in refused.stderr
    tried = build(root, root / "other", "--dry_run", "--skip_damaged")
    assert (tried.returncode, (root / "other").exists()) == (0, False)
    assert f"1 damaged image, which would be left out:\n{root}/test/{name}" in tried.stdout
    skipped = build(root, root / "records", "--skip_damaged")
    assert skipped.returncode == 0
    assert "20 training and 9 test images of 10 classes" in skipped.stdout
    assert f"damaged and left out, the others numbered without gaps: 1 test image: {name}\n" in skipped.stdout
    assert "next: python -m scripts.train_runs" in skipped.stdout


def test_records_with_gaps_say_at_once_that_they_are_not_for_training(damaged):
    root, _ = damaged
    arrays = {}
    for split, prefix in (("train", "tr"), ("test", "tt")):
        there = sorted((root / split).glob("*/*"), key=lambda path: (path.parent.name, path.name))
        arrays[f"{prefix}_filenames"] = np.array([path.name for path in there])
        arrays[f"{prefix}_labels"] = np.array([int(path.parent.name.removeprefix("class")) for path in there])
    np.savez(root / "index.npz", **arrays)
    skipped = build(root, root / "records", "--skip_damaged", f"--index_file={root}/index.npz")
    assert skipped.returncode == 0
    assert "20 training and 9 test images of 10 classes" in skipped.stdout
    assert "damaged and left out: 1 test example has no record (index 3)\n2 shards written" in skipped.stdout
    assert "these records can be read, but programs neither train nor evaluate on them" in skipped.stdout
    assert "next:" not in skipped.stdout, "what lacks images cannot be loaded as a whole"


def test_counts_say_what_was_converted(tmp_path):
    listed = image_cases.write_folders(tmp_path, 20, 10, "jpeg", (40, 30), ".JPEG")
    for number, kind in enumerate(("grey_png", "grey", "png", "png")):
        image_cases.rewrite(tmp_path, "train", listed["train"][number][0], kind)
    result = build(tmp_path, tmp_path / "records")
    assert "converted to RGB JPEG: grey 1, grey png 1, png 2\n" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message", "status"),
    [
        ([], "--train_folder is required", 2),
        (["--train_folder=no/such"], "--test_folder is required", 2),
        (["--train_folder=no/such", "--test_folder=x"], "--output is required", 2),
        (["--train_folder=no/such", "--test_folder=x", "--output=o"], "no/such: no such folder", 1),
        (["--format=cifar"], "format", 2),
        (["--num_workers=x"], "num_workers", 2),
    ],
)
def test_mistakes_get_one_clear_error(arguments, message, status):
    result = start("build_indexed_tfrecords", *arguments)
    assert result.returncode == status
    assert message in result.stderr
    assert result.stderr.count("error: ") == 1
    assert "Traceback" not in result.stderr


@pytest.mark.slow
def test_a_zoo_is_trained_and_checked_on_records(records, tmp_path):
    """Records of digits, all the way: training, scores, and an evaluation that confirms every prediction."""
    flags = (f"--dataset=records:{records[0]}",)
    options = ("--experiment=tiny", '--arch_options={"hidden_sizes": [16]}', "--run_ids=0:3", "--num_epochs=4")
    trained = start("train_runs", f"--zoo={tmp_path}", *flags, *options, "--batch_size=10")
    assert "3 runs trained, 0 skipped" in trained.stdout, trained.stderr
    again = start("train_runs", f"--zoo={tmp_path}", *flags, *options, "--batch_size=10")
    assert "0 runs trained, 3 skipped: nothing to do" in again.stdout
    evaluated = start("evaluate_run", f"--run={tmp_path}/tiny/0.7/1", "--split=train", *flags)
    assert evaluated.returncode == 0, evaluated.stderr
    scored = start("compute_scores", f"--zoo={tmp_path}", "--num_draws=20")
    assert scored.returncode == 0, scored.stderr


def on_small_disk(folder, images, sizes):
    """Builds on a file system of one size after the other, for real: in a mount namespace of its own."""
    disk = folder / "disk"
    disk.mkdir()
    program = f"{sys.executable} -m scripts.build_indexed_tfrecords --train_folder={images}/train"
    program += f" --test_folder={images}/test --output={disk}/records --num_train_shards=6 --num_test_shards=2"
    script = f"mount -t tmpfs -o size={sizes[0]} tmpfs {disk} || exit 77\n{program}\necho status $?\n"
    for size in sizes[1:]:
        script += f"find {disk} -name '*tmp-*'\nmount -o remount,size={size} {disk}\n{program}\necho status $?\n"
    command = ["unshare", "--mount", "--map-root-user", "sh", "-c", script]
    try:
        result = subprocess.run(command, capture_output=True, text=True, cwd=_ROOT, check=False)
    except FileNotFoundError:
        pytest.skip("needs Linux with unprivileged mount namespaces (util-linux's unshare)")
    if result.returncode == 77 or "unshare" in result.stderr:
        pytest.skip("needs Linux with unprivileged mount namespaces (util-linux's unshare)")
    assert "Traceback" not in result.stderr
    return result.stdout, result.stderr


def test_a_disk_that_is_too_small_is_refused_beforehand(images, tmp_path):
    out, err = on_small_disk(tmp_path, images, ["20k", "4m"])
    assert "records: the records to write need" in err
    assert "20.5 kB are free; make room or choose another folder" in err
    assert out.index("status 1") < out.index("8 shards written") < out.index("status 0")


def test_a_disk_that_fills_up_is_named_and_the_build_goes_on_with_room(images, tmp_path):
    """The smallest PNG become larger as JPEG, so what was asked for is not enough."""
    out, err = on_small_disk(tmp_path, images, ["64k", "4m"])
    assert "No space left on device: make room or choose another folder" in err
    refused, done = out.split("status 1\n")
    assert "written" not in refused
    assert "status 0" in done
    assert "tmp-" not in done, "no temporary files may be left"
