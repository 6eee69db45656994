"""Building records: what lies in them by TensorFlow's own reader, resuming, and everything that is refused."""

import dataclasses
import io
import json
import math
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
from PIL import Image
import pytest
import tensorflow as tf

from heldout.datasets import (
    indexed_records,
    record_building,
    record_format,
    record_plan,
    records_in_memory,
    registry,
)
from tests.heldout.datasets import image_cases
from zoo import errors, files


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Folders of digits as PNG of 8 x 8, and what is in them."""
    root = tmp_path_factory.mktemp("images")
    return root, image_cases.write_folders(root)


def _config(root, output, **changes):
    defaults = {"num_train_shards": 4, "num_test_shards": 2, "num_workers": 2}
    return record_plan.BuildConfig(f"{root}/train", f"{root}/test", str(output), **(defaults | changes))


def _build(root, output, **changes):
    return record_building.build(record_plan.make_plan(_config(root, output, **changes)))


def _read(output, known):
    """Every record by TensorFlow's own reader: shard, index, stored label, bytes, file name."""
    rows = []
    for shard in record_format.shards(output):
        for record in tf.data.TFRecordDataset(str(shard.path)).as_numpy_iterator():
            feature = tf.train.Example.FromString(record).features.feature
            name = feature["image/filename"].bytes_list.value[:]
            numbers = (feature[key].int64_list.value[0] for key in (known.index, known.label))
            rows.append((shard, *numbers, feature[known.image].bytes_list.value[0], name))
    return rows


def _bytes(output):
    return {path.name: path.read_bytes() for path in sorted(pathlib.Path(output).rglob("*")) if path.is_file()}


@pytest.mark.parametrize("name", ["imagenet", "tiny"])
def test_records_hold_the_images_in_original_order(images, tmp_path, name):
    root, listed = images
    summary = _build(root, tmp_path / "records", format=name)
    known = record_format.FORMATS[name]
    rows = _read(tmp_path / "records", known)
    assert not summary.up_to_date
    assert summary.num_written == 6
    for split in ("train", "test"):
        expected = listed[split]
        found = [row for row in rows if row[0].split == split]
        assert [index for _, index, *_ in found] == list(range(len(expected)))
        assert [label - known.label_offset for _, _, label, *_ in found] == [label for _, label, _ in expected]
        if name == "imagenet":
            assert [row[4] for row in found] == [[path.split("/")[1].encode()] for path, *_ in expected]
        for (_, _, _, content, _), (_, _, pixels) in zip(found, expected, strict=True):
            plain = len(content) == 192
            image = np.frombuffer(content, np.uint8).reshape(8, 8, 3) if plain else _decoded(content)
            assert np.abs(image.astype(int) - pixels).mean() < (12 if name == "imagenet" else 1e-9)
    counts = [shard["num_records"] for shard in summary.manifest["shards"]]
    assert counts == [8, 8, 7, 7, 6, 6]
    assert summary.manifest["conversions"].get("png", {"train": []})["train"] == (
        list(range(30)) if name == "imagenet" else []
    )


def _decoded(content):
    return np.asarray(Image.open(io.BytesIO(content)))


def test_what_is_built_can_be_opened_and_loaded(images, tmp_path):
    root, listed = images
    manifest = _build(root, tmp_path / "records", format="tiny").manifest
    records = indexed_records.open_records(tmp_path / "records")
    assert records.image_shape == (8, 8, 3)
    assert records.class_names == tuple(f"class{number}" for number in range(10))
    fingerprint = records.fingerprint()
    assert {name: manifest[name] for name in fingerprint if name != "name"} | {"name": "records:records"} == fingerprint
    loaded = records_in_memory.hold(records)
    np.testing.assert_array_equal(loaded.train.images, [pixels for _, _, pixels in listed["train"]])
    np.testing.assert_array_equal(loaded.test.label, [label for _, label, _ in listed["test"]])


def test_sound_jpegs_are_stored_byte_by_byte_and_others_converted(tmp_path):
    listed = image_cases.write_folders(tmp_path / "images", kind="jpeg", size=(40, 30), suffix=".JPEG")
    kinds = ("cmyk", "png", "grey", "progressive", "palette", "alpha")
    for number, kind in enumerate(kinds):
        image_cases.rewrite(tmp_path / "images", "train", listed["train"][3 * number][0], kind)
    manifest = _build(tmp_path / "images", tmp_path / "records").manifest
    reasons = ("cmyk", "png", "grey", "progressive", "palette png", "alpha png")
    assert manifest["conversions"] == {reason: {"train": [3 * i], "test": []} for i, reason in enumerate(reasons)}
    assert list(manifest["conversions"]) == sorted(reasons)
    for shard, index, _, content, _ in _read(tmp_path / "records", record_format.FORMATS["imagenet"]):
        path = tmp_path / "images" / shard.split / listed[shard.split][index][0]
        converted = shard.split == "train" and index % 3 == 0 and index < 18
        assert (content == path.read_bytes()) != converted
        assert tf.io.decode_jpeg(content).shape == (30, 40, 3)
        assert tf.io.is_jpeg(content)


def test_the_same_command_again_does_nothing(images, tmp_path):
    _build(images[0], tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    summary = _build(images[0], tmp_path)
    assert summary.up_to_date
    assert (summary.num_written, summary.manifest["num_train"]) == (0, 30)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


def test_bytes_do_not_depend_on_workers_nor_the_version_on_shards(images, tmp_path):
    one = _build(images[0], tmp_path / "one", num_workers=1)
    _build(images[0], tmp_path / "two", num_workers=3)
    assert _bytes(tmp_path / "one") == _bytes(tmp_path / "two")
    other = _build(images[0], tmp_path / "other", num_train_shards=3, shuffle_seed=5)
    assert other.manifest["version"] == one.manifest["version"]
    assert (other.manifest["record_order"], other.manifest["shuffle_seed"]) == ("shuffled", 5)
    rows = _read(tmp_path / "other", record_format.FORMATS["imagenet"])
    order = [index for shard, index, *_ in rows if shard.split == "train"]
    assert sorted(order) == list(range(30)) != order


def test_numbers_of_shards(images, tmp_path):
    plan = record_plan.make_plan(_config(images[0], tmp_path, num_train_shards=None, num_test_shards=None))
    assert [shard.name for shard in plan.shards] == ["train-00000-of-00001", "validation-00000-of-00001"]
    for flag in ("num_train_shards", "num_test_shards"):
        for number in (0, 31):
            with pytest.raises(
                errors.InvalidValueError, match=f"--{flag}={number}: expected 1 to [13][02], the number"
            ):
                record_plan.make_plan(_config(images[0], tmp_path, **{flag: number}))
    with pytest.raises(errors.InvalidValueError, match="--num_workers=0: must be at least 1"):
        _build(images[0], tmp_path, num_workers=0)
    with pytest.raises(errors.InvalidValueError, match="--num_workers=0: must be at least 1"):
        record_building.find_damaged(record_plan.make_plan(_config(images[0], tmp_path, num_workers=0)))
    with pytest.raises(errors.InvalidValueError, match="record format 'x' is unknown"):
        record_plan.make_plan(_config(images[0], tmp_path, format="x"))


def test_an_index_file_decides_about_the_index(images, tmp_path):
    root, listed = images
    generator, arrays, order = np.random.default_rng(0), {}, {}
    for split, prefix in (("train", "tr"), ("test", "tt")):
        order[split] = generator.permutation(len(listed[split]))
        arrays[f"{prefix}_filenames"] = np.array([listed[split][i][0].split("/")[1] for i in order[split]]).astype("S")
        arrays[f"{prefix}_labels"] = np.array([listed[split][i][1] for i in order[split]])
    np.savez(tmp_path / "index.npz", **arrays)
    _build(root, tmp_path / "records", index_file=str(tmp_path / "index.npz"), format="tiny")
    loaded = records_in_memory.load(tmp_path / "records")
    for split in ("train", "test"):
        np.testing.assert_array_equal(loaded.split(split).images, [listed[split][i][2] for i in order[split]])
    np.savez(tmp_path / "index.npz", **(arrays | {"tt_labels": arrays["tt_labels"][::-1]}))
    with pytest.raises(errors.MismatchError, match="tt_labels: differ from the classes of"):
        _build(root, tmp_path / "others", index_file=str(tmp_path / "index.npz"))


@pytest.fixture
def damaged(tmp_path):
    """Folders with two damaged training images, indices 4 and 20."""
    listed = image_cases.write_folders(tmp_path / "images", kind="jpeg", size=(40, 30), suffix=".JPEG")
    sound = (tmp_path / "images" / "train" / listed["train"][4][0]).read_bytes()
    image_cases.rewrite(tmp_path / "images", "train", listed["train"][4][0], "truncated")
    image_cases.rewrite(tmp_path / "images", "train", listed["train"][20][0], "text")
    return tmp_path / "images", [listed["train"][i][0] for i in (4, 20)], sound


def test_damaged_images_are_all_named_and_the_rest_is_kept(damaged, tmp_path):
    root, names, sound = damaged
    with pytest.raises(
        errors.DamagedFileError, match=r"2 damaged images:\n(.*\n)+Replace them and run the same"
    ) as found:
        _build(root, tmp_path / "records")
    assert all(name in str(found.value) for name in names)
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "records").glob("*-of-*")}
    assert sorted(kept) == [
        *("train-00001-of-00004", "train-00003-of-00004"),
        *("validation-00000-of-00002", "validation-00001-of-00002"),
    ]
    assert not (tmp_path / "records" / "records.json").exists()
    for name in names:
        (root / "train" / name).write_bytes(sound)
    assert _build(root, tmp_path / "records").num_written == 2
    assert {name: (tmp_path / "records" / name).stat().st_mtime_ns for name in kept} == kept


def test_damaged_images_are_left_out_before_the_others_are_numbered(damaged, tmp_path):
    root, names, _ = damaged
    with pytest.raises(errors.DamagedFileError):
        _build(root, tmp_path / "records")
    summary = _build(root, tmp_path / "records", skip_damaged=True)
    assert summary.num_written == 4  # the test shards were done
    assert summary.manifest["missing"] == {"train": [], "test": []}
    assert summary.manifest["left_out"] == {"train": sorted(names), "test": []}
    assert summary.manifest["num_train"] == 28
    assert sum(shard["num_records"] for shard in summary.manifest["shards"]) == 28 + 12
    for name in names:
        (root / "train" / name).unlink()
    _build(root, tmp_path / "without")
    shards = {name: content for name, content in _bytes(tmp_path / "records").items() if "-of-" in name}
    assert shards == {name: content for name, content in _bytes(tmp_path / "without").items() if "-of-" in name}
    open_for_training = registry.open_for_training(f"records:{tmp_path}/records")
    assert open_for_training.train_label.tolist() == [label for _, label in _sorted_labels(root)]


def _sorted_labels(root):
    files_there = sorted((path.parent.name, path.name) for path in (root / "train").glob("*/*"))
    return [(name, int(folder.removeprefix("class"))) for folder, name in files_there]


def test_a_build_that_left_images_out_is_complete(damaged, tmp_path):
    root, names, sound = damaged
    # Those without damage were written twice and count once.
    assert _build(root, tmp_path / "records", skip_damaged=True).num_written == 6
    assert _build(root, tmp_path / "records", skip_damaged=True).up_to_date
    assert _build(root, tmp_path / "records").up_to_date
    (root / "train" / names[0]).write_bytes(sound)
    with pytest.raises(errors.InvalidValueError, match="holds records of other images"):
        _build(root, tmp_path / "records", skip_damaged=True)


def test_an_image_that_was_damaged_and_is_sound_now_is_not_left_out(damaged, tmp_path):
    root, names, sound = damaged
    plan = record_plan.make_plan(_config(root, tmp_path / "records", skip_damaged=True))
    _begun(plan)
    record_building._write_plan(plan, {"train": set(names), "test": set()})
    assert record_building._known_damaged(plan) == {"train": set(names), "test": set()}
    assert plan.without(record_building._known_damaged(plan)).num_images == 40
    for name in names:
        (root / "train" / name).write_bytes(sound)
    summary = _build(root, tmp_path / "records", skip_damaged=True)
    assert summary.manifest["left_out"] == {"train": [], "test": []}
    _build(root, tmp_path / "again")
    assert _bytes(tmp_path / "records") == _bytes(tmp_path / "again")


@pytest.mark.parametrize("shuffle_seed", [None, 3])
def test_a_build_that_is_killed_once_damage_is_known_ends_alike(damaged, tmp_path, shuffle_seed, monkeypatch):
    options = {"skip_damaged": True, "shuffle_seed": shuffle_seed}
    _build(damaged[0], tmp_path / "undisturbed", **options)
    write_plan = record_building._write_plan

    def killed(plan, found):
        write_plan(plan, found)
        if any(found.values()):
            raise KeyboardInterrupt

    monkeypatch.setattr(record_building, "_write_plan", killed)
    with pytest.raises(KeyboardInterrupt):
        _build(damaged[0], tmp_path / "disturbed", **options)
    monkeypatch.undo()
    _build(damaged[0], tmp_path / "disturbed", **options)
    assert _bytes(tmp_path / "disturbed") == _bytes(tmp_path / "undisturbed")


def test_with_as_many_shards_as_images_one_stays_empty(damaged, tmp_path):
    summary = _build(damaged[0], tmp_path / "records", skip_damaged=True, num_train_shards=30)
    assert [shard["num_records"] for shard in summary.manifest["shards"]][:30] == [1] * 28 + [0] * 2
    assert len(_indices_of(indexed_records.open_records(tmp_path / "records"))) == 28


def _indices_of(records):
    (index, *_), *_ = records.evaluation_batches("train", 40).as_numpy_iterator()
    return sorted(index)


def test_a_split_without_a_sound_image_is_refused(damaged, tmp_path):
    for path in (damaged[0] / "test").glob("*/*"):
        path.write_text("no image")
    with pytest.raises(errors.DamagedFileError, match="test: none of its 12 images is sound, expected at least one"):
        _build(damaged[0], tmp_path / "records", skip_damaged=True)


def test_tiny_records_take_their_size_from_the_first_sound_image(tmp_path):
    listed = image_cases.write_folders(tmp_path / "images")
    image_cases.rewrite(tmp_path / "images", "train", listed["train"][0][0], "text")
    with pytest.raises(errors.DamagedFileError, match="not a sound image"):
        _build(tmp_path / "images", tmp_path / "records", format="tiny")
    summary = _build(tmp_path / "images", tmp_path / "records", format="tiny", skip_damaged=True)
    assert (summary.manifest["num_train"], summary.manifest["image_shape"]) == (29, [8, 8, 3])
    for path in (tmp_path / "images" / "train").glob("*/*"):
        path.write_text("no image")
    with pytest.raises(errors.DamagedFileError, match="not a sound image"):
        _build(tmp_path / "images", tmp_path / "other", format="tiny", skip_damaged=True)


def test_indices_that_others_have_published_stay_without_a_record(damaged, tmp_path):
    root, _, _ = damaged
    arrays = {}
    for split, prefix in (("train", "tr"), ("test", "tt")):
        there = sorted((root / split).glob("*/*"), key=lambda path: (path.parent.name, path.name))
        arrays[f"{prefix}_filenames"] = np.array([path.name for path in there])
        arrays[f"{prefix}_labels"] = np.array([int(path.parent.name.removeprefix("class")) for path in there])
    np.savez(tmp_path / "index.npz", **arrays)
    summary = _build(root, tmp_path / "records", skip_damaged=True, index_file=str(tmp_path / "index.npz"))
    assert summary.num_written == 6
    assert summary.manifest["missing"] == {"train": [4, 20], "test": []}
    assert summary.manifest["left_out"] == {"train": [], "test": []}
    assert summary.manifest["num_train"] == 30
    records = indexed_records.open_records(tmp_path / "records")
    assert records.missing["train"].tolist() == [4, 20]
    assert records.train_label.min() == 0, "labels of missing examples are known all the same"
    assert _indices_of(records) == [i for i in range(30) if i not in (4, 20)]
    with pytest.raises(errors.InvalidValueError, match=r"2 train examples have no record \(indices 4, 20\)"):
        registry.open_for_training(f"records:{tmp_path}/records")
    _build(root, tmp_path / "again", skip_damaged=True, index_file=str(tmp_path / "index.npz"))
    assert _bytes(tmp_path / "records") == _bytes(tmp_path / "again")


def test_damage_can_be_looked_for_without_writing(damaged, tmp_path):
    root, names, _ = damaged
    for skip_damaged in (False, True):
        plan = record_plan.make_plan(_config(root, tmp_path / "records", skip_damaged=skip_damaged))
        heard: list[tuple[int, int]] = []
        found = record_building.find_damaged(plan, lambda *progress, heard=heard: heard.append(progress))
        assert sorted(one.path for one in found) == sorted(names)
        assert all(one.split == "train" and one.path in one.reason for one in found)
        assert heard[-1] == (42, 42)
        assert not (tmp_path / "records").exists()


def test_a_build_that_left_images_out_is_not_continued_without_saying_so(damaged, tmp_path):
    root, _, _ = damaged
    # As with an index file, where shards with gaps are written.
    plan = record_plan.make_plan(_config(root, tmp_path / "records"))
    plan = dataclasses.replace(plan, config=dataclasses.replace(plan.config, skip_damaged=True, index_file="index.npz"))
    record_building._write(plan, _begun(plan), None)
    strict = record_plan.make_plan(_config(root, tmp_path / "records"))
    assert [shard.name for shard in record_building.pending_shards(strict)] == [
        "train-00000-of-00004",
        "train-00002-of-00004",
    ]


def _begun(plan):
    (plan.output / "unfinished").mkdir(parents=True)
    files.write_json(plan.output / "unfinished" / "plan.json", {"sha256": plan.digest(with_sizes=False)})
    return plan.shards


def test_a_file_that_changes_meanwhile_is_written_anew(images, tmp_path):
    image_cases.write_folders(tmp_path / "images")
    plan = record_plan.make_plan(_config(tmp_path / "images", tmp_path / "records"))
    record_building._write(plan, _begun(plan), None)
    path = tmp_path / "images" / "train" / plan.shards[2].sources[0].path
    os.utime(path, (time.time() + 5,) * 2)
    (plan.output / plan.shards[0].name).write_bytes(b"another size")
    plan = record_plan.make_plan(plan.config)
    assert [shard.name for shard in record_building.pending_shards(plan)] == [
        "train-00000-of-00004",
        "train-00002-of-00004",
    ]


def test_folders_of_other_builds_are_left_alone(images, tmp_path):
    root, _ = images
    _build(root, tmp_path / "records")
    with pytest.raises(
        errors.InvalidValueError, match="holds records of other images or other options; choose another"
    ):
        _build(root, tmp_path / "records", num_train_shards=5)
    (tmp_path / "records" / "records.json").unlink()
    with pytest.raises(errors.InvalidValueError, match="holds shards that no build of this program has begun; choose"):
        _build(root, tmp_path / "records")
    plan = record_plan.make_plan(_config(root, tmp_path / "begun"))
    _begun(plan)
    with pytest.raises(
        errors.InvalidValueError, match=r"holds an unfinished build of other images or other options. To"
    ):
        _build(root, tmp_path / "begun", format="tiny")


def test_shards_that_are_not_what_was_written_are_found(images, tmp_path):
    plan = record_plan.make_plan(_config(images[0], tmp_path / "records"))
    record_building._write(plan, _begun(plan), None)
    other = tmp_path / "records" / "train-00000-of-00004"
    rows = [source.index for source in plan.shards[0].sources]
    content = b"".join(
        record_format.framed(record_format.encode(plan.format, b"image", 9, index, "a.png")) for index in rows
    )
    other.write_bytes(content)
    note = other.parent / "unfinished" / f"{other.name}.json"
    note.write_text(json.dumps(json.loads(note.read_text()) | {"size": len(content)}))
    with pytest.raises(errors.DamagedFileError, match="train shards hold other labels than were written; delete the"):
        record_building.build(plan)


def test_a_disk_without_room_is_refused_beforehand(images, tmp_path):
    plan = record_plan.make_plan(_config(images[0], tmp_path / "records"))
    source = plan.shards[0].sources[0]
    huge = dataclasses.replace(plan.shards[0], sources=(dataclasses.replace(source, size=10**18),))
    plan = dataclasses.replace(plan, shards=(huge, *plan.shards[1:]))
    with pytest.raises(
        errors.DiskSpaceError, match=r"records: the records to write need 1000000 TB, .* are free; make"
    ):
        record_building.build(plan)
    assert not plan.output.exists()


def test_room_that_is_asked_for_is_enough(images, tmp_path):
    for name in ("imagenet", "tiny"):
        plan = record_plan.make_plan(_config(images[0], tmp_path / name, format=name))
        record_building.build(plan)
        taken = sum(shard.size for shard in record_format.shards(plan.output))
        asked = plan.num_bytes(plan.shards)
        assert (taken <= asked) or (name == "imagenet")  # tiny JPEGs are larger than the PNGs they come from
        assert math.isclose(taken, asked, rel_tol=0.7)


_BUILD = """
import sys
from heldout.datasets import record_building, record_plan
config = record_plan.BuildConfig(*sys.argv[1:4], num_train_shards=40, num_test_shards=5, num_workers=2,
                                 skip_damaged=True)
record_building.build(record_plan.make_plan(config))
"""


@pytest.mark.parametrize("most_kills", [5, pytest.param(40, marks=pytest.mark.slow)])
def test_killed_at_any_moment_a_build_ends_with_the_same_bytes(tmp_path, most_kills):
    listed = image_cases.write_folders(tmp_path, 400, 50, "png", (160, 120))
    image_cases.rewrite(tmp_path, "train", listed["train"][300][0], "text")
    undisturbed, disturbed = tmp_path / "undisturbed", tmp_path / "disturbed"
    generator, num_kills = np.random.default_rng(most_kills), 0

    def start(output):
        command = [sys.executable, "-c", _BUILD, f"{tmp_path}/train", f"{tmp_path}/test", str(output)]
        root = pathlib.Path(__file__).parents[3]
        return subprocess.Popen(command, cwd=root, stderr=subprocess.PIPE, text=True)

    for target in np.linspace(0, 44, most_kills).astype(int):
        process = start(disturbed)
        while process.poll() is None and len(list(disturbed.glob("*-of-*"))) < target:
            time.sleep(0.005)
        time.sleep(generator.uniform(0, 0.3))
        num_kills += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert num_kills >= 2
    for output in (disturbed, undisturbed):
        process = start(output)
        _, said = process.communicate()
        assert process.returncode == 0, said

    assert not (disturbed / "unfinished").exists()
    assert _bytes(disturbed) == _bytes(undisturbed)
