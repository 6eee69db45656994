"""Lists of images: order, labels, index files, and every disagreement between them."""

import numpy as np
import pytest

from heldout.datasets import image_folders
from zoo import errors


def _write(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(path.encode())


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "train"
    _write(root, "b/2.JPEG", "b/10.JPEG", "a/z.png", "a/images/c.jpg", "a/boxes.txt", "c/x.bmp", "c/.hidden.png")
    _write(root, ".cache/x.png")
    return root


def _index(path, names, labels, prefix="tr"):
    other = {"tr": "tt", "tt": "tr"}[prefix]
    np.savez(
        path,
        **{f"{prefix}_filenames": np.array(names), f"{prefix}_labels": np.array(labels)},
        **{f"{other}_filenames": np.array(["y"]), f"{other}_labels": np.array([0])},
    )
    return path


def test_index_is_the_rank_by_class_and_name(folder):
    names = image_folders.class_names(folder)
    assert names == ("a", "b", "c")
    found = image_folders.listing(folder, names)
    assert [(s.path, s.label, s.index, s.size) for s in found.sources] == [
        ("a/images/c.jpg", 0, 0, 14),
        ("a/z.png", 0, 1, 7),
        ("b/10.JPEG", 1, 2, 9),
        ("b/2.JPEG", 1, 3, 8),
        ("c/x.bmp", 2, 4, 7),
    ]
    assert found.left_out == ("a/boxes.txt",)
    assert found.sources[0].mtime_ns == (folder / "a/images/c.jpg").stat().st_mtime_ns


def test_a_list_of_classes_gives_the_labels(folder, tmp_path):
    (tmp_path / "synsets.txt").write_text("c the third\n\nb second\na\n")
    names = image_folders.class_names(folder, tmp_path / "synsets.txt")
    assert names == ("c", "b", "a")
    found = image_folders.listing(folder, names)
    assert [(s.path, s.label, s.index) for s in found.sources][:3] == [
        ("a/images/c.jpg", 2, 0),
        ("a/z.png", 2, 1),
        ("b/10.JPEG", 1, 2),
    ]


def test_a_list_of_classes_must_be_that_of_the_folder(folder, tmp_path):
    path = tmp_path / "synsets.txt"
    with pytest.raises(errors.MissingFileError, match=r"synsets.txt: no such file"):
        image_folders.class_names(folder, path)
    path.write_text("a\nb\nd\n")
    with pytest.raises(
        errors.MismatchError, match=r"not the classes of .*synsets.txt: 1 missing: d; 1 extra: c. Add what"
    ):
        image_folders.class_names(folder, path)
    path.write_text("a\nb\na\nc\n")
    with pytest.raises(errors.MismatchError, match="names a more than once; name each class once"):
        image_folders.class_names(folder, path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(errors.DamagedFileError, match="not UTF-8 text, expected the name of a class on each line"):
        image_folders.class_names(folder, path)


def test_folders_without_images_are_named(tmp_path):
    with pytest.raises(errors.MissingFileError, match="gone: no such folder, expected one folder of images for each"):
        image_folders.class_names(tmp_path / "gone")
    with pytest.raises(errors.MissingFileError, match="holds no folder, expected one for each class"):
        image_folders.class_names(tmp_path)
    _write(tmp_path, "a/b.txt")
    with pytest.raises(
        errors.MissingFileError, match=r"holds no images, expected <class>/<file> with one of .bmp .gif"
    ):
        image_folders.listing(tmp_path, ["a"])


def test_classes_of_the_test_folder_must_be_known(folder):
    with pytest.raises(errors.MismatchError, match="holds folders c, which are no classes of the training folder"):
        image_folders.listing(folder, ["a", "b"])
    assert len(image_folders.listing(folder, ["a", "b", "c", "d"]).sources) == 5


@pytest.mark.parametrize("suffix", ["", "with"])
@pytest.mark.parametrize("dtype", ["U", "S"])
@pytest.mark.parametrize("prefix", ["tr", "tt"])
def test_an_index_file_gives_the_order(folder, tmp_path, suffix, dtype, prefix):
    names = ["2.JPEG", "z.png", "x.bmp", "c.jpg", "10.JPEG"]
    stored = np.array(names if suffix else [name.split(".")[0] for name in names]).astype(dtype)
    path = _index(tmp_path / "index.npz", stored, [1, 0, 2, 0, 1], prefix)
    found = image_folders.listing(folder, ["a", "b", "c"])
    ordered = image_folders.indexed(found, {"tr": "train", "tt": "test"}[prefix], path)
    assert [s.index for s in ordered.sources] == [0, 1, 2, 3, 4]
    assert [s.path for s in ordered.sources] == ["b/2.JPEG", "a/z.png", "c/x.bmp", "a/images/c.jpg", "b/10.JPEG"]


def test_disagreements_with_an_index_file_are_named(folder, tmp_path):
    found = image_folders.listing(folder, ["a", "b", "c"])
    names, labels = ["2.JPEG", "z.png", "x.bmp", "c.jpg", "10.JPEG"], [1, 0, 2, 0, 1]

    def refused(names, labels, message, error=errors.MismatchError):
        with pytest.raises(error, match=message):
            image_folders.indexed(found, "train", _index(tmp_path / "index.npz", names, labels))

    refused([*names[:4], "gone.JPEG"], labels, r"tr_filenames: 1 missing: gone.JPEG; 1 extra: b/10.JPEG\. Add what")
    refused([*names, "11.JPEG"], [*labels, 1], "1 missing: 11.JPEG. Add")
    refused(names[:4], labels[:4], "1 extra: b/10.JPEG. Add")
    refused([*names, "z.png"], [*labels, 0], "tr_filenames: holds z.png more than once; names must be unique")
    refused(names, [1, 0, 2, 0, 2], r"tr_labels: differ from the classes of 1 images: b/10.JPEG \(1, there 2\)")
    refused(names, labels[:4], "expected as many integers as texts", errors.DamagedFileError)
    refused(names, [0.5] * 5, "expected as many integers as texts", errors.DamagedFileError)


def test_two_files_of_one_name_cannot_be_told_apart(folder, tmp_path):
    _write(folder, "c/z.png")
    found = image_folders.listing(folder, ["a", "b", "c"])
    path = _index(tmp_path / "index.npz", ["2.JPEG", "z.png", "x.bmp", "c.jpg", "10.JPEG"], [1, 0, 2, 0, 1])
    with pytest.raises(
        errors.MismatchError, match=r"a/z.png and c/z.png have the same name, by which .*index.npz finds"
    ):
        image_folders.indexed(found, "train", path)


def test_a_folder_one_level_too_high_is_blamed_and_not_the_other(tmp_path):
    for split in ("train", "test"):
        for name in ("a", "b"):
            _write(tmp_path, f"images/{split}/{name}/x.png")
    images = tmp_path / "images"

    def check(train, test):
        image_folders.check_levels(train, test, image_folders.class_names(train))

    check(images / "train", images / "test")
    with pytest.raises(
        errors.MismatchError, match=r"--train_folder=\S+/images: holds test, train, .* such as \S+/images/train$"
    ):
        check(images, images / "test")
    with pytest.raises(errors.MismatchError, match=r"--test_folder=\S+/images: holds test, train, no classes but"):
        check(images / "train", images)
    _write(tmp_path, "outer/test/a/x.png")
    with pytest.raises(errors.MismatchError, match=r"give the folder of the train images within it$"):
        check(tmp_path / "outer", tmp_path / "outer" / "test")
    _write(tmp_path, "other/c/x.png")
    with pytest.raises(
        errors.MismatchError, match=r"train holds a, b, .*other holds c: no class in common; expected one"
    ):
        check(images / "train", tmp_path / "other")
    (tmp_path / "empty").mkdir()
    check(images / "train", tmp_path / "empty")  # that it holds no images is said by `listing`
    with pytest.raises(errors.MissingFileError, match="gone: no such folder"):
        check(images / "train", tmp_path / "gone")
