"""Folders of images, one subfolder per class, as lists of examples with label and original index.

    <folder>/<class>/<any folders>/<file>

The label of a class is its rank among the sorted names of the subfolders of the training folder, or its place in a list
of names. The original index of a file is its rank, sorted by class and then by file name; or, with an index file, the
place of its name there. Hidden files are ignored; files that are no images by their suffix are left out and named.
"""

from collections.abc import Sequence
import dataclasses
import os
import pathlib

import numpy as np

from heldout.datasets import image_files, record_format
from zoo import errors, files, npz

_PREFIXES = {record_format.TRAIN: "tr", record_format.TEST: "tt"}


@dataclasses.dataclass(frozen=True)
class Source:
    """One image file.

    Attributes:
        path: below the folder of its split.
        label: 0..K-1.
        index: original index in its split.
        size: bytes.
        mtime_ns: time of modification.
    """

    path: str
    label: int
    index: int
    size: int
    mtime_ns: int


@dataclasses.dataclass(frozen=True)
class Listing:
    """The images of one split.

    Attributes:
        folder: of the split.
        sources: ascending by index, which runs from 0 without gaps.
        left_out: paths of files that are no images by their suffix.
    """

    folder: pathlib.Path
    sources: tuple[Source, ...]
    left_out: tuple[str, ...]


def class_names(train_folder: files.PathLike, synsets: files.PathLike | None = None) -> tuple[str, ...]:
    """The names of the classes by label.

    Args:
        train_folder: its subfolders are the classes.
        synsets: a text file with the name of a class at the beginning of each line, in the order of labels; without it
            names are sorted.

    Raises:
        MissingFileError: the folder or the file is not there, or the folder holds no subfolder.
        MismatchError: the file names a class twice, or the subfolders are not the classes of the file.
        DamagedFileError: the file is not UTF-8 text.
    """
    found = _subfolders(pathlib.Path(train_folder))
    if not found:
        raise errors.MissingFileError(f"{train_folder}: holds no folder, expected one for each class with its images")
    if synsets is None:
        return tuple(found)
    names = _first_words(pathlib.Path(synsets))
    if len(set(names)) != len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise errors.MismatchError(
            f"{synsets}: names {record_format.named(twice)} more than once; name each class once"
        )
    if set(names) != set(found):
        raise errors.MismatchError(
            f"{train_folder}: its folders are not the classes of {synsets}: "
            f"{_differences(set(found) - set(names), set(names) - set(found))}"
        )
    return tuple(names)


def check_levels(train_folder: files.PathLike, test_folder: files.PathLike, names: Sequence[str]) -> None:
    """Refuses two folders of which one lies higher than its classes.

    Args:
        train_folder: of the training images.
        test_folder: of the test images.
        names: of the classes, which are the subfolders of the former.

    Raises:
        MissingFileError: a folder is not there.
        MismatchError: no subfolder of the test folder is a class.
    """
    train, test = pathlib.Path(train_folder), pathlib.Path(test_folder)
    found = set(_subfolders(test))
    if not found or found & set(names):
        return
    for flag, folder, high, others, known in (
        ("train", train, names, found, test),
        ("test", test, sorted(found), set(names), train),
    ):
        below = [folder / name for name in high if others & set(_subfolders(folder / name))]
        if below:
            # Classes of the other split lie in the other's folder, too.
            own = next((path for path in below if path.resolve() != known.resolve()), None)
            example = "" if own is None else f", such as {own}"
            raise errors.MismatchError(
                f"--{flag}_folder={folder}: holds {record_format.named(high)}, no classes but folders of them; "
                f"expected one folder for each class: give the folder of the {flag} images within it{example}"
            )
    raise errors.MismatchError(
        f"{train} holds {record_format.named(names)}, {test} holds {record_format.named(sorted(found))}: no class in "
        "common; expected one folder for each class in both: check --train_folder and --test_folder"
    )


def listing(folder: files.PathLike, names: Sequence[str]) -> Listing:
    """The images of a split; the index of each is its rank by class, then file name.

    Args:
        folder: one subfolder per class; classes without a folder have no images here.
        names: of the classes, by label.

    Raises:
        MissingFileError: the folder is not there, or holds no image.
        MismatchError: a subfolder is none of the classes.
    """
    folder = pathlib.Path(folder)
    unknown = sorted(set(_subfolders(folder)) - set(names))
    if unknown:
        raise errors.MismatchError(
            f"{folder}: holds folders {record_format.named(unknown)}, which are no classes of the training folder; "
            "move them elsewhere or add the classes"
        )
    sources: list[Source] = []
    left_out: list[str] = []
    labels = {name: label for label, name in enumerate(names)}
    for name in sorted(_subfolders(folder)):
        found, others = _files(folder, name)
        left_out += others
        for path, status in found:
            sources.append(Source(path, labels[name], len(sources), status.st_size, status.st_mtime_ns))
    if not sources:
        suffixes = " ".join(sorted(image_files.SUFFIXES))
        raise errors.MissingFileError(f"{folder}: holds no images, expected <class>/<file> with one of {suffixes}")
    return Listing(folder, tuple(sources), tuple(left_out))


def indexed(found: Listing, split: str, index_file: files.PathLike) -> Listing:
    """The same images with the index that a published index file gives to their names.

    The file is an npz with `tr_filenames`, `tr_labels`, `tt_filenames` and `tt_labels`: place there is the index. Its
    names may be without suffix.

    Args:
        found: images of the split.
        split: train or test.
        index_file: the npz.

    Raises:
        MissingFileError: there is no such file.
        DamagedFileError: it is not such a file.
        MismatchError: a name is there twice, a file has no place in the index or a place no file, or labels differ.
    """
    prefix = _PREFIXES[split]
    names, label = _read_index(index_file, prefix)
    where = f"{index_file}: {prefix}_filenames"
    places = {name: place for place, name in enumerate(names)}
    if len(places) != len(names):
        twice = [name for place, name in enumerate(names) if places[name] != place]
        raise errors.MismatchError(f"{where}: holds {record_format.named(twice)} more than once; names must be unique")
    with_place = [(source, _place(places, source.path)) for source in found.sources]
    extra = [source.path for source, place in with_place if place is None]
    taken: dict[int, Source] = {}
    for source, place in with_place:
        if place is not None and place in taken:
            raise errors.MismatchError(
                f"{found.folder}: {taken[place].path} and {source.path} have the same name, by which {index_file} "
                "finds them; remove one of them"
            )
        if place is not None:
            taken[place] = source
    missing = [name for place, name in enumerate(names) if place not in taken]
    if missing or extra:
        raise errors.MismatchError(
            f"{found.folder}: its images are not those of {where}: {_differences(extra, missing)}"
        )
    wrong = [f"{taken[i].path} ({taken[i].label}, there {label[i]})" for i in taken if taken[i].label != label[i]]
    if wrong:
        raise errors.MismatchError(
            f"{index_file}: {prefix}_labels: differ from the classes of {len(wrong)} images: "
            f"{record_format.named(sorted(wrong))}; give the order of the classes with --synsets, or the right file"
        )
    ordered = tuple(dataclasses.replace(taken[place], index=place) for place in sorted(taken))
    return dataclasses.replace(found, sources=ordered)


def _place(places: dict[str, int], path: str) -> int | None:
    name = os.path.basename(path)
    return places.get(name, places.get(os.path.splitext(name)[0]))


def _read_index(path: files.PathLike, prefix: str) -> tuple[list[str], np.ndarray]:
    arrays = npz.read(path, [f"{prefix}_filenames", f"{prefix}_labels"])
    names, label = arrays[f"{prefix}_filenames"], arrays[f"{prefix}_labels"]
    if names.ndim != 1 or names.shape != label.shape or names.dtype.kind not in "SU" or label.dtype.kind not in "iu":
        raise errors.DamagedFileError(
            f"{path}: {prefix}_filenames {names.shape} of {names.dtype} and {prefix}_labels {label.shape} of "
            f"{label.dtype}, expected as many integers as texts; restore the file from its source"
        )
    texts = names.tolist()
    # Names that are no UTF-8 are found again by the bytes that the file system holds.
    return [os.path.basename(os.fsdecode(name)) for name in texts], label


def _differences(extra: Sequence[str] | set[str], missing: Sequence[str] | set[str]) -> str:
    texts = []
    if missing:
        texts.append(f"{len(missing)} missing: {record_format.named(sorted(missing))}")
    if extra:
        texts.append(f"{len(extra)} extra: {record_format.named(sorted(extra))}")
    return "; ".join(texts) + ". Add what is missing and move what is extra elsewhere"


def _subfolders(folder: pathlib.Path) -> list[str]:
    """Sorted names of the folders in a folder, hidden ones left out."""
    if not folder.is_dir():
        raise errors.MissingFileError(f"{folder}: no such folder, expected one folder of images for each class in it")
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))


def _files(folder: pathlib.Path, name: str) -> tuple[list[tuple[str, os.stat_result]], list[str]]:
    """Images of one class, sorted by file name, and other files."""
    found: list[tuple[str, os.stat_result]] = []
    others: list[str] = []
    pending = [name]
    while pending:
        below = pending.pop()
        for entry in os.scandir(folder / below):
            path = os.path.join(below, entry.name)
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                pending.append(path)
            elif os.path.splitext(entry.name)[1].lower() in image_files.SUFFIXES:
                found.append((path, entry.stat()))
            else:
                others.append(path)
    return sorted(found, key=lambda item: (os.path.basename(item[0]), item[0])), sorted(others)


def _first_words(path: pathlib.Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise errors.MissingFileError(f"{path}: no such file") from error
    except UnicodeDecodeError as error:
        raise errors.DamagedFileError(f"{path}: not UTF-8 text, expected the name of a class on each line") from error
    return [line.split()[0] for line in lines if line.strip()]
