"""The compressed archive: read by every gzip, entered at every segment, continued after every interruption."""

import gzip
import hashlib
import json
import os
import pathlib
import subprocess
import sys
import zlib

import google_crc32c
import pytest

from tests.zoo.archive import packing
from zoo import errors, files
from zoo.archive import digests, pack_plan, pack_stream, pack_tar

_ROOT = pathlib.Path(__file__).parents[3]


@pytest.fixture
def zoo(tmp_path, monkeypatch):
    # Many segments and a journal after each, so that little data has many places to stop at.
    monkeypatch.setattr(pack_tar, "SEGMENT_BYTES", 2048)
    monkeypatch.setattr(pack_stream, "JOURNAL_BYTES", 1)
    return packing.make_zoo(tmp_path / "zoo")


class Writer:
    """Writes the archive of a zoo into one folder, again and again."""

    def __init__(self, zoo, folder):
        self.zoo = zoo
        self.unfinished, self.journal = folder / "unfinished", folder / "journal.json"
        self.notes, self.positions = [], []

    def write(self, stop_after=None, level=6, num_workers=2):
        """Stops with an interrupt once so many segments are written."""
        self.notes, self.positions = [], []

        def progress(done, total):
            self.positions.append(done)
            assert done <= total
            if stop_after is not None and len(self.positions) > stop_after:
                raise KeyboardInterrupt

        segments = pack_plan.make(self.zoo, "e").segments
        places = (self.unfinished, self.journal)
        return pack_stream.write(
            segments, *places, level=level, num_workers=num_workers, progress=progress, note=self.notes.append
        )

    def interrupt(self, stop_after):
        with pytest.raises(KeyboardInterrupt):
            self.write(stop_after)

    @property
    def content(self):
        return self.unfinished.read_bytes()


@pytest.fixture
def writer(zoo, tmp_path):
    return Writer(zoo, tmp_path / "packed")


@pytest.fixture
def undisturbed(zoo, tmp_path):
    other = Writer(zoo, tmp_path / "undisturbed")
    return other.write(), other.content


def test_the_archive_holds_every_file(writer, zoo):
    writer.write()
    assert packing.tar_files(writer.content) == packing.packed_files(zoo)
    assert subprocess.run(["gzip", "-t"], input=writer.content, check=False).returncode == 0


@pytest.mark.parametrize("suffix", [b"", b"\0" * 512])
def test_digests_are_those_of_the_file(writer, suffix):
    written = writer.write()
    content = writer.content + suffix
    found = (len(content), hashlib.md5(content).hexdigest(), google_crc32c.value(content))
    assert (found == (written.size, written.md5, written.crc32c)) == (suffix == b"")


@pytest.mark.parametrize("level", [1, 6, 9])
def test_every_segment_can_be_entered_at_a_byte_without_a_window(writer, zoo, level):
    writer.write(level=level)
    content, start = writer.content, 10
    for segment in pack_plan.make(zoo, "e").segments:
        raw = pack_tar.read_segment(segment)
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        assert inflater.decompress(content[start:], len(raw)) == raw
        # It ends with the first empty stored block behind which all of it has come out.
        end = start
        while True:
            end = content.index(b"\x00\x00\xff\xff", end) + 4
            if zlib.decompressobj(-zlib.MAX_WBITS).decompress(content[start:end]) == raw:
                break
        start = end
    assert content[start:-8] == b"\x03\x00"


def test_the_number_of_workers_does_not_matter(writer, undisturbed):
    for num_workers in (1, 3):
        assert writer.write(num_workers=num_workers) == undisturbed[0]
        assert writer.content == undisturbed[1]


def test_levels_differ_in_size(writer):
    writer.write(level=1)
    large = len(writer.content)
    writer.write(level=9)
    assert len(writer.content) < large
    assert "the level" in writer.notes[0]


def test_progress_reaches_the_end(writer, zoo):
    writer.write()
    assert writer.positions[0] == 0
    assert writer.positions[-1] == pack_plan.make(zoo, "e").num_bytes
    assert writer.positions == sorted(writer.positions)


def test_stopped_anywhere_the_archive_is_continued_to_the_same_bytes(writer, undisturbed, zoo):
    num_segments = len(pack_plan.make(zoo, "e").segments)
    assert num_segments > 15
    for stop in range(2, num_segments + 1):
        writer.interrupt(stop)
        # What the journal does not speak of is written again, whatever it is.
        with open(writer.unfinished, "ab") as stream:
            stream.write(b"never journaled")
        assert writer.write() == undisturbed[0]
        assert writer.content == undisturbed[1]
        assert writer.positions[0] > 0
        assert not writer.notes
        writer.unfinished.unlink()


def test_stopped_again_and_again(writer, undisturbed):
    begun_at = []
    for _ in range(6):
        writer.interrupt(3)
        begun_at.append(writer.positions[0])
    assert begun_at == sorted(set(begun_at)), "every turn must begin where the one before ended"
    assert writer.write() == undisturbed[0]
    assert writer.content == undisturbed[1]


def test_written_to_the_end_it_is_not_written_again(writer, undisturbed):
    writer.write()
    assert writer.write() == undisturbed[0]
    assert len(writer.positions) == 1


def test_files_that_changed_before_the_place_of_the_journal_begin_anew(writer, zoo):
    writer.interrupt(8)
    packing.touch(zoo / "e" / "recipe.json")
    writer.write()
    assert writer.positions[0] == 0
    assert writer.notes[0].startswith(f"{writer.unfinished}: begun anew: files of the zoo")


def test_files_that_changed_behind_the_place_of_the_journal_do_not_matter(writer, zoo):
    writer.interrupt(8)
    last = max(zoo.rglob("aux_arrays.npz"), key=lambda path: int(path.parent.name))
    packing.touch(last)
    writer.write()
    assert writer.positions[0] > 0
    assert not writer.notes
    assert packing.tar_files(writer.content) == packing.packed_files(zoo)


def test_a_file_that_changes_meanwhile_ends_it_and_the_same_call_goes_on(writer, zoo):
    path = zoo / "e" / "0.7" / "10" / "aux_arrays.npz"
    segments = pack_plan.make(zoo, "e").segments
    packing.touch(path)
    with pytest.raises(errors.MismatchError, match=f"{path}: changed while"):
        pack_stream.write(segments, writer.unfinished, writer.journal, level=6, num_workers=2)
    writer.write()
    assert writer.positions[0] > 0
    assert packing.tar_files(writer.content) == packing.packed_files(zoo)


def shorten(writer):
    os.truncate(writer.unfinished, 20)


def spoil(**members):
    def change(writer):
        value = json.loads(writer.journal.read_text())
        state = value["state"] | members
        writer.journal.write_text(json.dumps({"sources": value["sources"], "state": state}))

    return change


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (shorten, "it has only 20 of"),
        (lambda writer: writer.journal.write_text("{"), "its journal cannot be used"),
        (lambda writer: writer.journal.write_text("{}"), "its journal cannot be used"),
        (spoil(digests={}), "its journal cannot be used"),
        (spoil(num_segments="many"), "its journal cannot be used"),
        (spoil(num_segments=10**6), "files of the zoo"),
        (spoil(num_segments=3), "files of the zoo"),
    ],
)
def test_what_cannot_be_continued_is_begun_anew_and_said(writer, undisturbed, damage, reason):
    writer.interrupt(8)
    damage(writer)
    assert writer.write() == undisturbed[0]
    assert writer.content == undisturbed[1]
    assert reason in writer.notes[0]


@pytest.mark.parametrize("which", ["unfinished", "journal"])
def test_half_of_what_is_needed_to_continue_begins_anew(writer, undisturbed, which):
    writer.interrupt(8)
    getattr(writer, which).unlink()
    assert writer.write() == undisturbed[0]
    assert writer.content == undisturbed[1]


def test_md5_is_that_of_the_file_also_where_its_state_is_lost(writer, undisturbed, monkeypatch):
    monkeypatch.setattr(digests, "_library", lambda: None)
    writer.interrupt(8)
    assert json.loads(writer.journal.read_text())["state"]["digests"]["md5"] is None
    assert writer.write() == undisturbed[0]
    assert writer.positions[0] > 0


def test_memory_stays_bounded(tmp_path):
    packing.make_zoo(tmp_path / "zoo", data_bytes=20_000_000)
    code = (
        "import pathlib, resource, sys\n"
        "from zoo.archive import pack_plan, pack_stream\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "segments = pack_plan.make(folder / 'zoo', 'e').segments\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "pack_stream.write(segments, folder / 'u', folder / 'j', level=1, num_workers=2)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=_ROOT, check=True)
    assert int(result.stdout) * 1024 < 60e6, "of 80 MB"
    assert len(gzip.decompress((tmp_path / "u").read_bytes())) > 80e6


def test_a_full_disk_is_named(zoo, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    namespace = ["unshare", "--mount", "--map-root-user", "sh", "-c"]
    code = (
        "import pathlib\n"
        "from zoo import errors\n"
        "from zoo.archive import pack_plan, pack_stream\n"
        f"disk, zoo = pathlib.Path('{disk}'), '{zoo}'\n"
        "try:\n"
        "    segments = pack_plan.make(zoo, 'e').segments\n"
        "    pack_stream.write(segments, disk / 'u', disk / 'j', level=6, num_workers=2)\n"
        "except OSError as error:\n"
        "    print(errors.explain(error))\n"
    )
    files.write_text(tmp_path / "code.py", code)
    script = f"mount -t tmpfs -o size=8k tmpfs {disk} || exit 9\nPYTHONPATH=. {sys.executable} {tmp_path}/code.py\n"
    try:
        result = subprocess.run([*namespace, script], capture_output=True, text=True, cwd=_ROOT, check=False)
    except FileNotFoundError:
        pytest.skip("needs Linux with util-linux's unshare")
    if result.returncode:
        pytest.skip("needs Linux with unprivileged mount namespaces")
    assert result.stdout.startswith(f"{disk}/u: No space left on device: make room")
