"""Deflate data, block by block: it stops at every border, and says what went wrong."""

import zlib

import numpy as np
import pytest

from tests.zoo.archive import gzips
from zoo import errors
from zoo.archive import inflate


def run(stream, data, room=1 << 22):
    """All steps over some data: outcomes with the input taken and output made after each."""
    source, target = np.frombuffer(data, np.uint8), np.empty(room, np.uint8)
    stream.set_input(source.ctypes.data, len(data))
    stream.set_output(target.ctypes.data, room)
    steps = []
    while not steps or steps[-1][0] == inflate.BOUNDARY:
        outcome = stream.step()
        steps.append((outcome, len(data) - stream.input_left, room - stream.output_left, stream.bits))
    return steps, target[: steps[-1][2]].tobytes()


def raw(data, level=6):
    compressor = zlib.compressobj(level, zlib.DEFLATED, -15)
    return compressor.compress(data) + compressor.flush()


def test_every_block_is_a_step():
    data = gzips.mixed(500_000)
    steps, output = run(inflate.Stream(), raw(data) + b"behind")
    assert output == data
    assert len(steps) > 8
    assert [outcome for outcome, *_ in steps] == [inflate.BOUNDARY] * (len(steps) - 1) + [inflate.END]
    assert steps[-1][1] == len(raw(data))


def test_blocks_go_on_from_window_and_bits():
    data = gzips.text(300_000)
    content = raw(data)
    steps, _ = run(inflate.Stream(), content)
    stream = inflate.Stream()
    assert {bits for _, _, _, bits in steps[:-1]} != {0}
    for _, taken, made, bits in steps[:-1]:
        stream.restart(data[max(0, made - (1 << 15)) : made], bits, content[taken - 1])
        assert run(stream, content[taken:])[1] == data[made:]


def test_output_that_waits_comes_without_input():
    data = bytes(100_000)
    content = raw(data)
    source, target = np.frombuffer(content, np.uint8), np.empty(100_000, np.uint8)
    stream = inflate.Stream()
    assert stream.set_input(source.ctypes.data, len(content)) == len(content)
    made = 0
    while made < len(data):
        stream.set_output(target.ctypes.data + made, 1000)
        assert stream.step() in (inflate.STARVED, inflate.END)
        made += 1000 - stream.output_left
    assert target.tobytes() == data
    assert stream.step() in (inflate.END, inflate.STARVED)


def test_ends_of_blocks_need_no_room():
    for size in range(1, 80):
        data = gzips.floats(400)[:size]
        compressor = zlib.compressobj(6, zlib.DEFLATED, -15)
        for content, expected in (
            (compressor.compress(data) + compressor.flush(zlib.Z_PARTIAL_FLUSH), inflate.BOUNDARY),
            (raw(data), inflate.END),
        ):
            source, target = np.frombuffer(content, np.uint8), np.empty(size + 10, np.uint8)
            stream = inflate.Stream()
            stream.set_input(source.ctypes.data, len(content))
            stream.set_output(target.ctypes.data, size)
            outcome = stream.step()
            if outcome == inflate.STARVED:
                stream.set_output(target.ctypes.data + size, 10)
                outcome = stream.step()
            assert outcome == expected


def test_starved_and_damaged():
    content = raw(gzips.mixed(100_000))
    assert run(inflate.Stream(), content[:-5])[0][-1][0] == inflate.STARVED
    stream = inflate.Stream()
    assert run(stream, b"\x07garbage")[0][-1][0] == inflate.DAMAGED
    assert stream.message == "invalid block type"
    assert inflate.Stream().message == "invalid deflate data"


def test_error_carries_both_offsets():
    error = inflate.InflateError("message", 3, 5)
    assert (str(error), error.offset, error.position) == ("message", 3, 5)
    assert isinstance(error, errors.DamagedFileError)


def test_refusals_of_the_library():
    stream = inflate.Stream()
    with pytest.raises(errors.InvalidValueError, match="zlib refused"):
        stream._check(-2)
    with pytest.raises(MemoryError, match="too little memory"):
        stream._check(-4)
    stream._inflate = lambda *_: -4
    with pytest.raises(MemoryError, match="too little memory"):
        stream.step()
