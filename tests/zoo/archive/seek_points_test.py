"""Seek points: any range comes out of any point before it, and a point is small."""

import base64
import gzip
import json
import zlib

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from tests.zoo import corruptions
from tests.zoo.archive import gzips
from zoo import errors
from zoo.archive import gzip_stream, inflate, seek_points

SIZE = 400_000
FILES = gzips.makes(SIZE)
MAKES_WITH_POINTS = sorted(set(FILES) - {"empty", "one byte", "zeros"})


def boundaries_with_windows(content, batch_bytes=1 << 20):
    inflater = gzip_stream.GzipInflater(batch_bytes=batch_bytes)
    return [(place, batch.window(place)) for batch in inflater.feed(content) for place in batch.boundaries]


def points_of(content, chosen, chunk_size=1 << 30):
    """Points of chosen (boundary, window) pairs, asked for as soon as their chunk has come."""
    maker, points, waiting = seek_points.PointMaker(), [], list(chosen)
    for start in range(0, len(content), chunk_size):
        chunk = content[start : start + chunk_size]
        maker.on_chunk(start, chunk)
        while waiting and waiting[0][0].offset <= start + len(chunk):
            maker.request(*waiting.pop(0))
        points += maker.take_ready()
    assert not waiting
    return points + maker.flush()


def chosen_of(content, number=20):
    pairs = boundaries_with_windows(content)
    return pairs[:: max(1, len(pairs) // number)]


@pytest.mark.parametrize("name", FILES)
def test_ranges_come_out_of_every_point(name):
    content = FILES[name]
    expected = gzip.decompress(content)
    rng = np.random.default_rng(0)
    points = points_of(content, chosen_of(content))
    assert len(points) >= 1
    for point in points:
        left = len(expected) - point.position
        start = point.position + int(rng.integers(0, left + 1))
        size = int(rng.integers(0, len(expected) - start + 1))
        compressed = content[point.first_byte :]
        for begin, length in ((point.position, left), (start, size), (start, 0)):
            wanted = expected[begin : begin + length]
            assert b"".join(seek_points.inflate_range(point, compressed, begin, length)) == wanted
            pieces = [compressed[at : at + 3001] for at in range(0, len(compressed), 3001)]
            assert b"".join(seek_points.inflate_range(point, iter(pieces), begin, length)) == wanted


def test_single_bytes_of_input():
    content = gzips.makes(3000)["several members"]
    expected = gzip.decompress(content)
    for point in points_of(content, boundaries_with_windows(content)):
        pieces = [bytes([byte]) for byte in content[point.first_byte :]]
        output = b"".join(seek_points.inflate_range(point, pieces, point.position, len(expected) - point.position))
        assert output == expected[point.position :]


@pytest.mark.parametrize("name", MAKES_WITH_POINTS)
def test_all_bit_offsets_occur_and_chunks_do_not_matter(name):
    content = FILES[name]
    chosen = chosen_of(content, 40)
    points = points_of(content, chosen)
    for chunk_size in (701, 50_000):
        assert points_of(content, chosen, chunk_size) == points


def test_every_bit_offset_is_reached():
    content = gzips.member(gzips.floats(600_000), 6, flush=zlib.Z_PARTIAL_FLUSH, every=3000)
    points = points_of(content, boundaries_with_windows(content))
    assert {point.bits for point in points} == set(range(8))
    expected = gzip.decompress(content)
    for point in points[:64]:
        output = seek_points.inflate_range(point, content[point.first_byte :], point.position, 1000)
        assert b"".join(output) == expected[point.position : point.position + 1000]


def test_windows_are_small():
    content = gzips.member(gzips.floats(3_000_000))
    sizes = [len(point.window) for point in points_of(content, chosen_of(content, 60))]
    assert len(sizes) > 40
    assert np.mean(sizes[:-2]) < 400
    flushed = gzips.member(gzips.mixed(SIZE), flush=zlib.Z_FULL_FLUSH, every=40_000)
    aligned = [point for point in points_of(flushed, boundaries_with_windows(flushed)) if point.position % 40_000 == 0]
    assert len(aligned) == 11
    assert all(point.window == b"" for point in aligned)


def test_what_is_dropped_from_a_window_is_not_needed_and_what_is_kept_is():
    content = FILES["text"]
    expected = gzip.decompress(content)
    boundary, window = boundaries_with_windows(content)[2]
    (point,) = points_of(content, [(boundary, window)])
    kept = np.frombuffer(zlib.decompress(point.window).rjust(1 << 15, b"\0"), np.uint8)
    assert kept.any()
    assert zlib.decompress(point.window)[0]
    full = np.frombuffer(window, np.uint8)
    assert ((kept == full) | (kept == 0)).all()
    assert len(point.window) < len(zlib.compress(window))
    rng = np.random.default_rng(1)
    for place in rng.choice(np.flatnonzero(kept), 5, replace=False):
        changed = kept.copy()
        changed[place] ^= 1
        worse = seek_points.Point(point.position, point.offset, point.bits, zlib.compress(changed.tobytes()))
        output = b"".join(seek_points.inflate_range(worse, content[point.first_byte :], point.position, 1 << 15))
        assert output != expected[point.position : point.position + (1 << 15)]


@pytest.mark.parametrize("name", ["default", "several members", "stored"])
def test_pending_points_continue_from_their_state(name):
    content = FILES[name]
    chosen = chosen_of(content)
    expected = points_of(content, chosen)
    for index, (boundary, window) in enumerate(chosen):
        # The pass stops where the next boundary lies, a little after the chunk that asked for a point.
        maker = seek_points.PointMaker()
        end = min(boundary.offset + 9000, len(content))
        maker.on_chunk(0, content[: boundary.offset])
        maker.on_chunk(boundary.offset, content[boundary.offset : end])
        maker.request(boundary, window)
        state = json.loads(json.dumps(maker.pending_state()))
        again = seek_points.PointMaker()
        again.restore(state)
        again.on_chunk(boundary.offset, content[boundary.offset : boundary.offset + 1])
        again.on_chunk(boundary.offset + 1, content[boundary.offset + 1 :])
        assert again.flush() == [expected[index]]


def test_points_are_given_in_the_order_asked_for_and_once():
    content = FILES["several members"]
    chosen = boundaries_with_windows(content)
    maker = seek_points.PointMaker()
    near = next(index for index, (place, _) in enumerate(chosen) if place.fresh and place.position)
    end = chosen[near][0].offset + 10
    maker.on_chunk(0, content[:end])
    maker.request(*chosen[near - 1])
    maker.request(*chosen[near])
    first = maker.take_ready()
    maker.on_chunk(end, content[end:])
    points = first + maker.take_ready() + maker.flush()
    assert [point.position for point in points] == [chosen[near - 1][0].position, chosen[near][0].position]
    assert maker.flush() == []


def test_points_before_the_end_of_a_gzip_member_do_not_wait_for_more():
    content = gzips.member(gzips.text(30_000), flush=zlib.Z_PARTIAL_FLUSH, every=9000)
    chosen = boundaries_with_windows(content)
    maker = seek_points.PointMaker()
    maker.on_chunk(0, content + bytes(1 << 17))
    for boundary, window in chosen:
        maker.request(boundary, window)
    assert len(maker.take_ready()) == len(chosen) > 3


def test_all_output_that_the_data_allows_comes_out():
    content = gzips.member(bytes(5_000_000), 9)
    point = seek_points.Point(0, 10, 0, b"")
    # The second range is around the input that gives a mebibyte.
    for end in (*range(100, len(content) - 8, 97), *range(1000, 1060)):
        size = len(zlib.decompressobj(31).decompress(content[:end]))
        assert sum(map(len, seek_points.inflate_range(point, content[10:end], 0, size))) == size


@pytest.mark.parametrize("missing", ["all", "gap"])
def test_whole_window_where_the_bytes_behind_were_not_seen(missing):
    content = FILES["default"]
    boundary, window = boundaries_with_windows(content)[4]
    maker = seek_points.PointMaker()
    if missing == "gap":
        maker.on_chunk(boundary.offset, content[boundary.offset : boundary.offset + 100])
        maker.request(boundary, window)
        maker.on_chunk(boundary.offset + 200, content[boundary.offset + 200 :])
    else:
        maker.on_chunk(boundary.offset + 200, content[boundary.offset + 200 :])
        maker.request(boundary, window)
    (point,) = maker.take_ready()
    assert zlib.decompress(point.window) == window


def test_whole_window_where_the_bytes_behind_are_damaged_or_endless():
    content = FILES["default"]
    boundary, window = boundaries_with_windows(content)[4]
    for behind in (b"\xff" * 100, b"\0\0\0\xff\xff" * 60_000):
        maker = seek_points.PointMaker()
        maker.on_chunk(boundary.offset, behind)
        maker.request(gzip_stream.Boundary(boundary.position, boundary.offset, 0, False), window)
        (point,) = maker.flush()
        assert zlib.decompress(point.window) == window


def test_late_requests_reach_back_into_earlier_chunks():
    content = gzips.member(gzips.floats(6_000_000), 1)
    chosen = boundaries_with_windows(content)
    expected = points_of(content, chosen[50:51])
    offset = chosen[50][0].offset
    for size in (900_000, 100_000):
        maker = seek_points.PointMaker()
        end = offset + 800_000
        for start in range(0, end, size):
            maker.on_chunk(start, content[start : min(start + size, end)])
        maker.request(*chosen[50])
        assert maker.take_ready() == expected
        assert sum(len(data) for _, data in maker._seen) < 3_000_000


@pytest.mark.parametrize(
    "value", [[{}], [1], [{"boundary": {}}], 3, [{"window": "", "compressed": "", "ready": None, "boundary": None}]]
)
def test_damaged_states_are_refused(value):
    with pytest.raises(errors.DamagedFileError, match="not the saved state of seek points"):
        seek_points.PointMaker().restore(value)


def test_damaged_windows_in_a_state_are_refused():
    maker = seek_points.PointMaker()
    maker.request(gzip_stream.Boundary(40_000, 30_000, 0, False), b"x" * 100)
    (state,) = maker.pending_state()
    for window, message in ((b"nothing", "damaged"), (zlib.compress(bytes(40_000)), "too long")):
        with pytest.raises(errors.DamagedFileError, match=message):
            seek_points.PointMaker().restore([state | {"window": base64.b64encode(window).decode()}])


def point_in(content, index=4):
    boundary, window = boundaries_with_windows(content)[index]
    return points_of(content, [(boundary, window)])[0]


def test_ranges_before_the_point_are_refused():
    point = point_in(FILES["default"])
    for start, size in ((point.position - 1, 5), (point.position, -1)):
        with pytest.raises(errors.InvalidValueError, match="cannot be inflated from"):
            list(seek_points.inflate_range(point, b"", start, size))


@pytest.mark.parametrize(
    ("window", "message"),
    [
        (b"garbage", "incorrect header"),
        (zlib.compress(bytes(1 << 20)), "too short or too long"),
        (zlib.compress(bytes((1 << 15) + 1)), "too short or too long"),
        (zlib.compress(bytes(100))[:-1], "too short or too long"),
    ],
)
def test_windows_are_not_trusted(window, message):
    point = seek_points.Point(0, 10, 0, window)
    with pytest.raises(errors.DamagedFileError, match=f"window of a seek point is damaged .*{message}"):
        list(seek_points.inflate_range(point, FILES["default"][10:], 0, 5))


def test_early_end_and_damage_are_named():
    content = FILES["several members"]
    expected = gzip.decompress(content)
    point = point_in(content)
    left = len(expected) - point.position
    ends = (point.first_byte, point.first_byte + 100, len(content) - 200)
    for end in ends:
        with pytest.raises(inflate.InflateError, match="ends too early") as caught:
            list(seek_points.inflate_range(point, content[point.first_byte : end], point.position, left))
        assert caught.value.offset == end
    with pytest.raises(inflate.InflateError, match="ends too early"):
        list(seek_points.inflate_range(point, content[point.first_byte :], point.position, left + 1))
    with pytest.raises(inflate.InflateError, match="ends too early"):
        list(seek_points.inflate_range(point, content[point.first_byte :] + bytes(99), point.position, left + 1))
    with pytest.raises(inflate.InflateError, match=r"is damaged: .*expected the header"):
        list(seek_points.inflate_range(point, content[point.first_byte :] + b"garbage", point.position, left + 1))
    with pytest.raises(inflate.InflateError, match="the deflate data is damaged"):
        list(seek_points.inflate_range(point, b"\xff" * 1000, point.position, left))


def test_no_more_chunks_are_taken_than_needed():
    content = FILES["default"]
    point = point_in(content)
    taken = []

    def chunks():
        for start in range(point.first_byte, len(content), 1000):
            taken.append(start)
            yield content[start : start + 1000]

    list(seek_points.inflate_range(point, chunks(), point.position, 5000))
    assert len(taken) < 12


@settings(max_examples=100, deadline=None)
@given(st.data(), st.binary(max_size=40), st.integers(0, 7))
def test_hostile_points_and_data_give_bytes_or_our_errors(data, window, bits):
    content = data.draw(corruptions.corrupted(gzips.makes(600)["several members"][10:]))
    point = seek_points.Point(0, 10, bits, data.draw(st.sampled_from([b"", window, zlib.compress(window)])))
    try:
        output = b"".join(seek_points.inflate_range(point, content, 10, 300))
    except errors.DamagedFileError:
        return
    assert len(output) == 300
