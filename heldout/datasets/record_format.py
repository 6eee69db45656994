"""Image records in TFRecord shards: names of shards, features of a record, and their bytes, without TensorFlow.

A shard holds records one after the other, each framed as

    length (uint64), masked CRC32C of these 8 bytes, the record, masked CRC32C of the record

with little-endian numbers; a record is a serialised tf.train.Example. Two families of features are known:

    format      image            label (less label_offset)    index     original file name
    imagenet    image/encoded    image/class/label, 1..K      index     image/filename
    tiny        image_raw        label, 0..K-1                index     none

`index` is the position in the original order of the split, by which masks, correctness and scores name an example.
Where records lie in the shards, and in what order, means nothing.
"""

from collections.abc import Collection, Iterable, Mapping
import dataclasses
import pathlib
import re
import struct

import google_crc32c

from zoo import errors, files

TRAIN, TEST = "train", "test"
SPLITS = (TRAIN, TEST)
# Bytes before and after a record.
HEADER, FOOTER = struct.Struct("<QI"), struct.Struct("<I")
_LENGTH = struct.Struct("<Q")
_MASK_DELTA = 0xA282EAD8
_SHARD = re.compile(
    r"(?:.*[-_.])?(?P<split>train|validation|valid|val|test)(?:\.tfrecords?)?-(?P<number>[0-9]{5,})-of-(?P<total>[0-9]{5,})"
)
_TEST_NAMES = ("validation", "valid", "val", "test")
_MOST_NAMED = 5


@dataclasses.dataclass(frozen=True)
class Format:
    """A family of features.

    Attributes:
        name: imagenet or tiny.
        image, label, index: names of the features.
        filename: name of the feature with the original file name; None where records have none.
        label_offset: what stored labels begin at.
        test_shards: what shards of the test split are called.
        image_shape: [H, W, C] of the images that reading gives, where no manifest says another.
        mean, std: per channel, of what reading gives; None for values in [0, 1].
        num_published: training and test images of the data set in its published order.
        num_shards: training and test shards of its published records.
    """

    name: str
    image: str
    label: str
    index: str
    filename: str | None
    label_offset: int
    test_shards: str
    image_shape: tuple[int, int, int]
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    num_published: tuple[int, int]
    num_shards: tuple[int, int]


FORMATS: dict[str, Format] = {
    "imagenet": Format(
        name="imagenet",
        image="image/encoded",
        label="image/class/label",
        index="index",
        filename="image/filename",
        label_offset=1,
        test_shards="validation",
        image_shape=(224, 224, 3),
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        num_published=(1_281_167, 50_000),
        num_shards=(1024, 128),
    ),
    "tiny": Format(
        name="tiny",
        image="image_raw",
        label="label",
        index="index",
        filename=None,
        label_offset=0,
        test_shards="test",
        image_shape=(64, 64, 3),
        mean=None,
        std=None,
        num_published=(100_000, 10_000),
        num_shards=(64, 8),
    ),
}


@dataclasses.dataclass(frozen=True)
class Shard:
    """One file of records.

    Attributes:
        split: train or test.
        path: where it lies.
        size: its bytes.
    """

    split: str
    path: pathlib.Path
    size: int


def format_of(name: str) -> Format:
    """The format of this name.

    Raises:
        InvalidValueError: there is none.
    """
    if name not in FORMATS:
        raise errors.InvalidValueError(f"record format {name!r} is unknown; use one of {', '.join(FORMATS)}")
    return FORMATS[name]


def shard_name(record_format: Format, split: str, number: int, total: int) -> str:
    """The file name of shard `number` (from 0) of `total`, such as train-00000-of-01024."""
    prefix = TRAIN if split == TRAIN else record_format.test_shards
    return f"{prefix}-{number:05d}-of-{total:05d}"


def shards(folder: files.PathLike) -> list[Shard]:
    """The shards of a folder, found by their names: training first, then by name.

    The test split may be called validation, valid, val or test. Other files are ignored.

    Args:
        folder: where the shards lie.

    Raises:
        MissingFileError: the folder is not there, or a split, or a shard of a split.
        DamagedFileError: two sets of shards claim to be one split.
    """
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise errors.MissingFileError(f"{folder}: no such folder; give the folder that holds the shards of records")
    sets: dict[tuple[str, str, int], dict[int, Shard]] = {}
    for path in sorted(folder.iterdir()):
        match = _SHARD.fullmatch(path.name)
        if match is None or not path.is_file():
            continue
        prefix = path.name[: match.start("number")]
        split = TEST if match["split"] in _TEST_NAMES else TRAIN
        shard = Shard(split, path, path.stat().st_size)
        sets.setdefault((split, prefix, int(match["total"])), {})[int(match["number"])] = shard
    return [shard for split in SPLITS for shard in _complete(folder, split, sets)]


def _complete(folder: pathlib.Path, split: str, sets: dict[tuple[str, str, int], dict[int, Shard]]) -> list[Shard]:
    """The one set of shards of a split, all of them there."""
    found = [key for key in sets if key[0] == split]
    if not found:
        names = "train-00000-of-01024" if split == TRAIN else "validation-00000-of-00128 or test-00000-of-00008"
        raise errors.MissingFileError(f"{folder}: holds no {split} shards, expected files named like {names}")
    if len(found) > 1:
        names = " and ".join(f"{prefix}*-of-{total:05d}" for _, prefix, total in found)
        raise errors.DamagedFileError(
            f"{folder}: holds several sets of {split} shards, {names}; expected one: move the others elsewhere"
        )
    (_, prefix, total), by_number = found[0], sets[found[0]]
    missing = [f"{prefix}{number:05d}-of-{total:05d}" for number in range(total) if number not in by_number]
    beyond = [by_number[number].path.name for number in by_number if number >= total]
    if missing or beyond:
        what = f"lacks {named(missing)}" if missing else f"holds {named(beyond)}, beyond the number of shards"
        raise errors.MissingFileError(f"{folder}: {what}; restore the {split} shards from where they come from")
    return [by_number[number] for number in sorted(by_number)]


def named(names: Iterable[object]) -> str:
    """Some of many names for a message: "a, b, c and 97 more"."""
    texts = [str(name) for name in names]
    more = f" and {len(texts) - _MOST_NAMED} more" if len(texts) > _MOST_NAMED else ""
    return ", ".join(texts[:_MOST_NAMED]) + more


def missing_text(split: str, indices: Collection[int]) -> str:
    """How many examples of a split have no record, and which: "2 train examples have no record (indices 3, 8)"."""
    if len(indices) == 1:
        return f"1 {split} example has no record (index {named(indices)})"
    return f"{len(indices)} {split} examples have no record (indices {named(indices)})"


def masked_crc32c(content: bytes) -> int:
    """The checksum of TFRecord: CRC32C, rotated by 15 bits, plus a constant."""
    checksum = google_crc32c.value(content)
    return ((checksum >> 15 | checksum << 17) + _MASK_DELTA) & 0xFFFFFFFF


def framed(record: bytes) -> bytes:
    """A record with its length and checksums, as it stands in a shard."""
    length = _LENGTH.pack(len(record))
    return b"".join((length, FOOTER.pack(masked_crc32c(length)), record, FOOTER.pack(masked_crc32c(record))))


def encode(record_format: Format, image: bytes, label: int, index: int, filename: str) -> bytes:
    """The record of one example: a serialised tf.train.Example, the image last.

    Args:
        record_format: names of the features.
        image: the bytes to store.
        label: 0..K-1.
        index: position in the original order of the split.
        filename: original file name; left out where the format has no place for it.
    """
    features: dict[str, bytes | int] = {
        record_format.index: index,
        record_format.label: label + record_format.label_offset,
    }
    if record_format.filename is not None:
        features[record_format.filename] = filename.encode("utf-8", errors="surrogateescape")
    return _example({**features, record_format.image: image})


def _example(features: Mapping[str, bytes | int]) -> bytes:
    entries = []
    for name, value in features.items():
        # An Int64List, packed, is field 3 of a Feature; a BytesList is field 1.
        feature = _field(3, _field(1, _varint(value))) if isinstance(value, int) else _field(1, _field(1, value))
        entries.append(_field(1, _field(1, name.encode()) + _field(2, feature)))
    return _field(1, b"".join(entries))


def _field(number: int, content: bytes) -> bytes:
    """A protocol buffer's field that holds bytes."""
    return bytes([number << 3 | 2]) + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    groups = []
    while number >= 0x80:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*groups, number])
