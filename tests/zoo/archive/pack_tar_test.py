"""Bytes of the tar file: cut anywhere, for files of any size, and never of a file that changes."""

import io
import os
import tarfile

import pytest

from tests.zoo.archive import packing
from zoo import errors, layout
from zoo.archive import pack_plan, pack_tar


@pytest.fixture
def zoo(tmp_path):
    return packing.make_zoo(tmp_path)


def run_of(zoo, ratio=0.7, run_id=1):
    return layout.Run(zoo, "e", ratio, run_id)


def tar_bytes(plan):
    return b"".join(pack_tar.read_segment(segment) for segment in plan.segments)


def test_large_files_are_cut_into_segments(zoo, monkeypatch):
    whole = tar_bytes(pack_plan.make(zoo, "e"))
    monkeypatch.setattr(pack_tar, "SEGMENT_BYTES", 700)
    plan = pack_plan.make(zoo, "e")
    assert tar_bytes(plan) == whole
    assert max(segment.stop - segment.start for segment in plan.segments[:-1]) == 700


def test_sizes_that_ustar_cannot_hold(tmp_path):
    size = (9 << 30) + 5
    path = tmp_path / "large"
    path.touch()
    os.truncate(path, size)  # sparse: it takes no room
    source = pack_tar.source(tmp_path, path)
    first, *_, last, end = pack_tar.segments([(source,)])
    with tarfile.open(fileobj=io.BytesIO(pack_tar.read_segment(first)), mode="r:") as archive:
        member = archive.next()
    assert (member.size, member.offset_data) == (size, 3 * 512)
    assert pack_tar.read_segment(last) == bytes((size + 3 * 512 + 507) % pack_tar.SEGMENT_BYTES)
    assert (last.stop + end.stop - end.start) % 10240 == 0


def grow(path):
    with open(path, "ab") as stream:
        stream.write(b"more")


def rewrite(path):
    path.write_bytes(path.read_bytes()[::-1])
    packing.touch(path, 1)


@pytest.mark.parametrize("change", [grow, rewrite, lambda path: path.unlink(), lambda path: os.truncate(path, 10)])
@pytest.mark.parametrize("which", [0, 1, 2])
def test_files_that_change_are_named(zoo, change, which):
    plan = pack_plan.make(zoo, "e")
    path = [*packing.checkpoint_paths(run_of(zoo)), run_of(zoo).aux_arrays_path][which]
    change(path)
    with pytest.raises(errors.MismatchError, match=f"^{path}: changed while it was packed .*run the command again"):
        tar_bytes(plan)


def test_a_source_that_cannot_be_read_is_named(zoo):
    plan = pack_plan.make(zoo, "e")
    path = layout.recipe_path(zoo, "e")
    path.unlink()
    path.mkdir()
    with pytest.raises(IsADirectoryError) as caught:
        tar_bytes(plan)
    assert caught.value.filename == str(path)
