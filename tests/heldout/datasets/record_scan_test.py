"""Scans of shards without reading images, on shards that TensorFlow has written; and every damage that they find."""

import numpy as np
import pytest

from heldout.datasets import record_format, record_scan
from tests.heldout.datasets import record_cases
from zoo import errors

_TINY = record_format.FORMATS["tiny"]
_IMAGENET = record_format.FORMATS["imagenet"]


def _shard(path, records, split="train"):
    record_cases.write_shard(path, records)
    return record_format.Shard(split, path, path.stat().st_size)


def _tiny(tmp_path, *pairs, name="train-00000-of-00001"):
    return _shard(tmp_path / name, [record_cases.tiny_example(b"image", label, index) for label, index in pairs])


def test_index_and_label_of_every_record(tmp_path):
    images = [np.random.default_rng(i).bytes(size) for i, size in enumerate((0, 5, 200, 3000, 70000, 300000))]
    records = [record_cases.imagenet_example(image, i * 100, 10**i) for i, image in enumerate(images)]
    shard = _shard(tmp_path / "train-00000-of-00001", records)
    scan = record_scan.scan_shard(shard, _IMAGENET)
    assert scan.index.tolist() == [10**i for i in range(6)]
    assert scan.label.tolist() == [i * 100 for i in range(6)]
    assert scan.checksum.tolist() == [record_format.masked_crc32c(record) for record in records]


def test_images_are_not_read(tmp_path):
    """Damage within an image goes unseen here: its checksum is verified by whoever reads it."""
    record = record_cases.tiny_example(bytes(1 << 20), 3, 0)
    shard = _shard(tmp_path / "train-00000-of-00001", [record])
    content = bytearray(shard.path.read_bytes())
    content[len(content) // 2] ^= 1  # within the image
    shard.path.write_bytes(content)
    assert record_scan.scan_shard(shard, _TINY).label.tolist() == [3]


def test_order_of_features_does_not_matter(tmp_path):
    def field(number, content):
        return bytes([number << 3 | 2]) + record_format._varint(len(content)) + content

    def entry(name, feature, reverse):
        parts = [field(1, name), field(2, feature)]
        return field(1, b"".join(reversed(parts) if reverse else parts))

    unpacked = field(3, b"\x08\x2a")  # 42 as a number of its own, not packed
    image = field(1, field(1, bytes(100_000)))
    for reverse in (False, True):
        entries = [
            entry(b"image_raw", image, reverse),
            entry(b"index", unpacked, reverse),
            entry(b"label", field(3, field(1, b"\x07")), reverse),
            entry(b"x" * 300, image, reverse),
        ]
        shard = _shard(tmp_path / "train-00000-of-00001", [field(1, b"".join(entries)) + b"\x10\x05\x1d\0\0\0\0"])
        scan = record_scan.scan_shard(shard, _TINY)
        assert (scan.index.tolist(), scan.label.tolist()) == ([42], [7])


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (record_cases.example(image_raw=b"", label=1), "has no feature index"),
        (record_cases.example(image_raw=b""), "has no feature index and no label"),
        (record_cases.example(image_raw=b"", label=1, index=np.array([1, 2])), "index holds 2 integers, expected one"),
        (record_cases.example(image_raw=b"", label=b"1", index=1), "label holds 0 integers, expected one"),
        (record_cases.example(image_raw=b"", label=bytes(1 << 17), index=1), "label takes 13.* bytes, expected one"),
        (b"\x0a\xff\x01\x00", "holds a field that reaches beyond its end"),
        (b"\x0b", "holds a field of kind 3, which an Example has not"),
        (b"\xff" * 12, "a number of more than 64 bits"),
    ],
    ids=["no index", "no label", "two", "text", "long", "beyond", "kind", "bits"],
)
def test_records_that_are_no_examples_are_named(tmp_path, record, message):
    shard = _shard(tmp_path / "train-00000-of-00001", [record_cases.tiny_example(b"", 1, 0), record])
    with pytest.raises(errors.DamagedFileError, match=f"train-00000-of-00001: record 1: {message}") as caught:
        record_scan.scan_shard(shard, _TINY)
    assert "restore the shard" in str(caught.value)


def test_every_cut_is_found(tmp_path):
    shard = _tiny(tmp_path, (1, 0), (2, 1), (3, 2))
    content = shard.path.read_bytes()
    whole = [len(content) // 3 * i for i in range(4)]
    for size in range(len(content)):
        shard.path.write_bytes(content[:size])
        if size in whole:
            assert len(record_scan.scan_shard(shard, _TINY).index) == whole.index(size)
            continue
        with pytest.raises(errors.DamagedFileError, match=r"the shard ends within the (header|record) at byte"):
            record_scan.scan_shard(shard, _TINY)


def test_a_wrong_length_is_found(tmp_path):
    shard = _tiny(tmp_path, (1, 0), (2, 1))
    content = bytearray(shard.path.read_bytes())
    content[0] ^= 1
    shard.path.write_bytes(content)
    with pytest.raises(errors.DamagedFileError, match="record 0: the length at byte 0 fails its checksum"):
        record_scan.scan_shard(shard, _TINY)


def test_random_damage_is_never_more_than_an_error(tmp_path):
    shard = _shard(
        tmp_path / "train-00000-of-00001", [record_cases.imagenet_example(b"abc" * 50, 1, i) for i in (0, 1)]
    )
    content, generator = shard.path.read_bytes(), np.random.default_rng(0)
    for _ in range(400):
        damaged = bytearray(content)
        for place in generator.integers(12, len(content) // 2 - 4, 3):
            damaged[place] = generator.integers(256)
        shard.path.write_bytes(damaged)
        try:
            scan = record_scan.scan_shard(shard, _IMAGENET)
        except errors.DamagedFileError:
            continue
        assert len(scan.index) == 2


def test_splits_are_put_into_original_order(tmp_path):
    one = _tiny(tmp_path, (5, 2), (6, 0), name="train-00000-of-00002")
    two = _tiny(tmp_path, (7, 1), name="train-00001-of-00002")
    heard = []
    split = record_scan.scan_split([one, two], _TINY, lambda done, total: heard.append((done, total)))
    assert split.label.tolist() == [6, 7, 5]
    assert split.num_records == (2, 1)
    assert split.missing.tolist() == []
    assert heard == [(one.size, one.size + two.size), (one.size + two.size,) * 2]


def test_the_version_follows_content_and_order_but_not_the_shards(tmp_path):
    def version(*shards):
        scans = []
        for number, pairs in enumerate(shards):
            scans.append(_tiny(tmp_path, *pairs, name=f"train-{number:05d}-of-{len(shards):05d}"))
        return record_scan.version([record_scan.scan_split(scans, _TINY)])

    known = version([(1, 0), (2, 1), (3, 2)])
    assert known == version([(3, 2)], [(1, 0), (2, 1)])
    assert known == version([(2, 1), (3, 2), (1, 0)], [])
    others = {version([(1, 0), (2, 1), (4, 2)]), version([(2, 0), (1, 1), (3, 2)]), version([(1, 0), (2, 1)])}
    assert len(others | {known}) == 4
    assert len(known) == 16


@pytest.mark.parametrize(
    ("pairs", "messages"),
    [
        ([(0, 0), (0, 1), (0, 1)], ["more than once: 1 (train-00000-of-00001)", "1 indices of 0..2 are missing: 2"]),
        ([(0, 0), (0, 7)], ["1 indices lie outside 0..1: 7 (train-00000-of-00001)", "of 0..1 are missing: 1"]),
        ([(0, 0), (0, -1)], ["outside 0..1: -1 (train-00000-of-00001)"]),
        ([(0, 0), (-3, 1)], ["labels begin at 0, but index 1 has -3"]),
        ([], ["there is no record"]),
    ],
)
def test_wrong_indices_and_labels_are_named(tmp_path, pairs, messages):
    with pytest.raises(errors.DamagedFileError, match="the train records are not one of each index") as caught:
        record_scan.scan_split([_tiny(tmp_path, *pairs)], _TINY)
    for message in messages:
        assert message in str(caught.value)


def test_gaps_that_are_known_are_allowed(tmp_path):
    shard = _tiny(tmp_path, (5, 0), (6, 3))
    split = record_scan.scan_split([shard], _TINY, num_expected=4, may_lack=np.array([1, 2]))
    assert split.label.tolist() == [5, -1, -1, 6]
    assert split.missing.tolist() == [1, 2]
    with pytest.raises(errors.DamagedFileError, match=r"1 indices of 0..3 are missing: 2"):
        record_scan.scan_split([shard], _TINY, num_expected=4, may_lack=np.array([1]))


def test_formats_are_told_by_the_features(tmp_path):
    assert record_scan.detect_format(_tiny(tmp_path, (0, 0))) == _TINY
    imagenet = _shard(tmp_path / "a", [record_cases.imagenet_example(bytes(5000), 0, 0)])
    assert record_scan.detect_format(imagenet) == _IMAGENET
    without = _shard(tmp_path / "b", [record_cases.example(image__encoded=b"", image__class__label=1)])
    with pytest.raises(
        errors.DamagedFileError, match=r"the features image/class/label, image/encoded, expected image/"
    ):
        record_scan.detect_format(without)
    with pytest.raises(errors.DamagedFileError, match="holds no record; restore the shard"):
        record_scan.detect_format(_shard(tmp_path / "c", []))
    (tmp_path / "d").write_bytes(b"abc")
    with pytest.raises(errors.DamagedFileError, match="d: the shard ends within the header at byte 0"):
        record_scan.detect_format(record_format.Shard("train", tmp_path / "d", 3))
