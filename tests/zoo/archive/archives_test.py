"""The archives that other tests are built on are what they say, for programs that are not ours."""

import gzip
import shutil
import subprocess
import tarfile
import zlib

import pytest

from tests.zoo.archive import archives, tar_reading
from zoo import aux_arrays, checkpoints, layout
from zoo.archive import names


def files_of(zoo):
    return {str(path.relative_to(zoo)): path.read_bytes() for path in zoo.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    return archives.make_zoo(tmp_path_factory.mktemp("zoo"), num_parameters=500, recipe={"dataset": "synthetic"})


def test_zoos_are_real(zoo):
    runs = layout.runs(zoo, "synthetic")
    assert [(run.subset_ratio, run.run_id) for run in runs] == list(archives.DEFAULT_RUNS)
    for run in runs:
        aux = aux_arrays.read(run.aux_arrays_path)
        assert (aux.num_train, aux.num_test, len(aux.index_train)) == (60, 20, round(60 * run.subset_ratio))
        listing = checkpoints.read_listing(layout.latest_checkpoint(run))
        assert listing == {"model/layer/b": ((50,), "float32"), "model/layer/w": ((450, 1), "float32")}
    parts = {names.classify(path).part for path in files_of(zoo)}
    assert parts == {"aux_arrays", "checkpoint_index", "checkpoint_data", "recipe"}


def test_equal_arguments_give_equal_zoos(zoo, tmp_path):
    again = archives.make_zoo(tmp_path, num_parameters=500, recipe={"dataset": "synthetic"})
    assert files_of(again) == files_of(zoo)
    other = archives.make_zoo(tmp_path / "other", num_parameters=0, seed=1, runs=[(0.5, 0)])
    path = "synthetic/0.5/0/aux_arrays.npz"
    assert list(files_of(other)) == [path]
    assert files_of(other)[path] != files_of(zoo)[path]


@pytest.mark.parametrize("tar_format", archives.TAR_FORMATS)
@pytest.mark.parametrize(
    "options",
    [
        {"order": "sorted", "level": 9},
        {"order": "reversed", "prefix": "./", "num_gzip_members": 3},
        {"order": 5, "prefix": "published/zoos/", "with_directories": False, "level": 1},
    ],
)
def test_archives_hold_the_zoo(zoo, tmp_path, tar_format, options):
    target = archives.write_archive(zoo, "synthetic", tmp_path / "a.tar.gz", tar_format=tar_format, **options)
    prefix = options.get("prefix", "")
    with tarfile.open(target) as archive:
        read = {info.name: archive.extractfile(info).read() for info in archive if info.isreg()}
        found = archive.getnames()
    assert read == {prefix + path: content for path, content in files_of(zoo).items()}
    assert len(found) == len(read) + (9 if options.get("with_directories", True) else 0)
    assert (found == sorted(found)) is (options["order"] == "sorted")
    data = gzip.decompress(target.read_bytes())
    assert {member.name: content for member, content in tar_reading.parse_whole(data) if member.kind == "file"} == read
    again = archives.write_archive(zoo, "synthetic", tmp_path / "b.tar.gz", tar_format=tar_format, **options)
    assert again.read_bytes() == target.read_bytes()
    plain = archives.write_archive(zoo, "synthetic", tmp_path / "c.tar", tar_format=tar_format, **options)
    assert plain.read_bytes() == data
    if shutil.which("tar"):
        listed = subprocess.run(
            ["tar", "--list", "--gzip", "--file", target], stdout=subprocess.PIPE, check=True
        ).stdout
        assert [line.rstrip("/") for line in listed.decode().splitlines()] == found


def test_gzip_members():
    data = archives.HOSTILE["npz_none"]()
    for num_members in (1, 2, 7):
        compressed, num_found = archives.gz(data, num_members=num_members), 0
        while compressed:
            decompressor = zlib.decompressobj(31)
            decompressor.decompress(compressed)
            compressed = decompressor.unused_data
            num_found += 1
        assert num_found == num_members
        assert gzip.decompress(archives.gz(data, num_members=num_members)) == data


def test_damage(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"abcd")
    archives.flip(path, 1)
    archives.flip(path, -1, mask=0xFF)
    assert path.read_bytes() == b"acc\x9b"
    archives.truncate(path, 3)
    assert path.read_bytes() == b"acc"
    archives.truncate(path, -1)
    assert path.read_bytes() == b"ac"
