"""Points lie where members can be reached from, as many as needed, whatever the pieces the archive came in."""

import bisect
import json

import numpy as np
import pytest

from tests.zoo.archive import archives
from zoo.archive import gzip_stream, seek_plan, seek_points, tar_stream


class Pass:
    """Follows an archive as a scan does; notes the point of every member."""

    def __init__(self, compressed, chunk_bytes, restart_every=None):
        self.points, self.point_of, self.ends, self.tar = {}, {}, {}, tar_stream.TarParser()
        self._compressed, self._chunk_bytes, self._restart_every = compressed, chunk_bytes, restart_every
        self._inflater, self._plan = gzip_stream.GzipInflater(), seek_plan.SeekPlan(self._add)

    def _add(self, number, point):
        assert number == len(self.points)
        self.points[number] = point

    def run(self):
        at = num_chunks = 0
        while at < len(self._compressed):
            chunk = self._compressed[at : at + self._chunk_bytes]
            self._plan.take_chunk(at, chunk)
            state = None
            for batch in self._inflater.feed(chunk):
                self._take(batch)
                state = batch.state() if batch.ends_at_boundary else None
            at, num_chunks = at + len(chunk), num_chunks + 1
            settled = state is not None and self.tar.settled == state.boundary.position
            if settled and self._restart_every and num_chunks % self._restart_every == 0:
                at = self._restart(state)
        self._inflater.finish()
        self._plan.settle(self._inflater.num_output)
        self._plan.finish()
        return self

    def _restart(self, place):
        """What a kill and another process do."""
        saved = json.loads(json.dumps([self._plan.state(), self.tar.state(), place.to_json()]))
        place = gzip_stream.InflaterState.from_json(saved[2])
        self._inflater = gzip_stream.GzipInflater(place)
        self._plan = seek_plan.SeekPlan(self._add, place, saved[0])
        self.tar = tar_stream.TarParser(state=saved[1])
        return place.boundary.offset

    def _take(self, batch):
        self._plan.take_batch(batch)
        for event in self.tar.feed(batch.data):
            if isinstance(event, tar_stream.Start):
                self.point_of[event.member] = self._plan.point_before(event.member.header_position)
                self.ends[event.member.name] = event.member.data_position + event.member.size, None
        for name, (end, offset) in self.ends.items():
            if offset is None and end <= batch.position + len(batch.data):
                self.ends[name] = end, self._plan.end_offset(end, batch)
        self._plan.settle(self.tar.settled)
        self._plan.deliver()


def noise(size, seed=0):
    """Bytes that deflate makes little of, in blocks as usual."""
    return np.random.default_rng(seed).integers(0, 64, size, np.uint8).tobytes()


def archive(sizes, level=6, num_members=1, tar_format="gnu", name="e/{}"):
    """A tar and its gzip form; every third member has a name that takes an extension."""
    made = [
        archives.member(name.format(number) + ("/" + "long" * 60 if number % 3 == 2 else ""), noise(size, number))
        for number, size in enumerate(sizes)
    ]
    tar = archives.tar_bytes(made, tar_format)
    return tar, archives.gz(tar, level, num_members)


SIZES = [3000, 200_000, 10, 0, 90_000, 150_000, 40, 70_000, 500_000, 900]


def check(passed, tar, compressed):
    """Every member can be had from its point with the bytes up to its end, and no point is far."""
    assert passed.point_of
    for member, number in passed.point_of.items():
        point, (_, stop) = passed.points[number], passed.ends[member.name]
        assert point.position <= member.header_position
        data = compressed[point.first_byte : stop]
        found = b"".join(seek_points.inflate_range(point, data, member.data_position, member.size))
        assert found == tar[member.data_position : member.data_position + member.size]


@pytest.mark.parametrize("tar_format", ["gnu", "pax"])
@pytest.mark.parametrize(("level", "num_members"), [(6, 1), (1, 4), (9, 1), (0, 3)])
def test_every_member_is_reached_from_its_point_and_the_pieces_do_not_matter(tar_format, level, num_members):
    tar, compressed = archive(SIZES, level, num_members, tar_format)
    whole = Pass(compressed, 1 << 23).run()
    check(whole, tar, compressed)
    for chunk_bytes, restart_every in ((1013, None), (1013, 1), (40_000, 3)):
        pieces = Pass(compressed, chunk_bytes, restart_every).run()
        assert pieces.points == whole.points
        assert pieces.point_of == whole.point_of
        assert pieces.ends == whole.ends


def test_a_point_never_lies_behind_a_header_that_came_in_many_pieces():
    """A long extension, in pieces so small that it reaches over hundreds of batches."""
    data = noise(2000)
    long = archives.pax_extension(archives.pax_record("comment", "".join(map(chr, 48 + np.arange(60_000) % 64))))
    tar = (
        archives.raw_member(archives.header("e/first", 150_000), noise(150_000))
        + long
        + archives.raw_member(archives.header("e/second", len(data)), data)
    )
    tar += archives.END
    # Blocks of deflate end within the extension.
    compressed = archives.gz(tar, num_members=60)
    whole, pieces = Pass(compressed, 1 << 20).run(), Pass(compressed, 100).run()
    check(whole, tar, compressed)
    check(pieces, tar, compressed)
    assert pieces.points == whole.points
    second = next(member for member in pieces.point_of if member.name == "e/second")
    assert second.data_position - second.header_position > 60_000


def test_near_headers_share_a_point():
    _, compressed = archive([1000] * 300, num_members=20)
    passed = Pass(compressed, 1 << 20).run()
    positions = [point.position for point in passed.points.values()]
    assert 2 <= len(positions) <= 8
    assert min(np.diff(positions)) >= seek_plan.MERGE
    assert all(
        member.header_position - positions[number] < 2 * seek_plan.MERGE for member, number in passed.point_of.items()
    )


def test_members_of_some_size_have_the_last_boundary_before_them():
    _, compressed = archive([150_000] * 8)
    passed = Pass(compressed, 1 << 20).run()
    boundaries = [
        boundary.position for batch in gzip_stream.GzipInflater().feed(compressed) for boundary in batch.boundaries
    ]
    for member, number in passed.point_of.items():
        last = boundaries[bisect.bisect_right(boundaries, member.header_position) - 1]
        assert passed.points[number].position == last


def test_inside_large_members_there_is_a_point_now_and_then(monkeypatch):
    monkeypatch.setattr(seek_plan, "SPACING", 400_000)
    tar, compressed = archive([2_500_000, 100], level=1)
    whole, pieces = Pass(compressed, 1 << 20).run(), Pass(compressed, 9999, 2).run()
    assert pieces.points == whole.points
    distances = np.diff([point.position for point in whole.points.values()])
    assert len(distances) >= 4
    assert (distances[:-1] >= 400_000).all()
    assert (distances < 600_000).all()
    check(whole, tar, compressed)


def test_behind_a_gap_a_new_point_is_made_however_near(monkeypatch):
    _, compressed = archive([3000, 3000, 3000], num_members=3)
    points = []
    plan = seek_plan.SeekPlan(lambda number, point: points.append(point))
    plan.take_chunk(0, compressed)
    batches = list(gzip_stream.GzipInflater().feed(compressed))
    for batch in batches:
        plan.take_batch(batch)
    assert (plan.point_before(512), plan.point_before(4000)) == (0, 0)
    fresh = [boundary for batch in batches for boundary in batch.boundaries if boundary.fresh][-1]
    assert fresh.position < seek_plan.MERGE
    place = gzip_stream.InflaterState(fresh, b"", 3, 0, 0, None)
    plan.begin_at(place)
    assert plan.point_before(fresh.position + 100) == 1
    plan.finish()
    assert [point.offset for point in points] == [points[0].offset, fresh.offset]


def test_ends_are_those_of_the_batch():
    boundaries = tuple(gzip_stream.Boundary(position, 10 * position, 0, False) for position in (5, 8, 20))
    batch = gzip_stream.Batch(3, memoryview(bytes(17)), memoryview(b""), boundaries, 0, None)
    plan = seek_plan.SeekPlan(lambda number, point: None)
    assert [plan.end_offset(position, batch) for position in (4, 5, 6, 20, 21)] == [50, 50, 80, 200, None]
