"""A pass over an archive: from any saved state on, over damage, and what it says of the whole."""

import collections
import functools
import hashlib

import google_crc32c
import numpy as np
import pytest

from tests.zoo.archive import archives, passes
from tests.zoo.remote import fault_server
from zoo import errors
from zoo.archive import digests, gzip_stream, index, indexing, journal, pump, scan
from zoo.remote import source

RUNS = [(0.3, 0), (0.3, 4), (0.5, 1), (0.7, 2)]
FAST = source.Options(num_tries=2, backoff_s=0.01, timeout_s=2.0)


def zoo_files():
    """Halves of checkpoints lie far apart, with a large member between and others before and behind."""
    by_run = [passes.run_files(*run, num_values=60_000) for run in RUNS]
    files = {"e/notes.txt": b"notes", "e/recipe.json": b'{"seed": 1}'}
    for part in (1, 0, 2):
        for run in by_run:
            name = list(run)[part]
            files[name] = run[name]
        files[f"e/{part}.bin"] = np.random.default_rng(part).bytes(700_000 * (part == 1))
    return files


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    return passes.write(tmp_path_factory.mktemp("archive") / "a.tar.gz", zoo_files(), num_gzip_members=3)


@pytest.fixture(scope="module")
def undisturbed(archive, tmp_path_factory):
    return passes.indexed(archive, tmp_path_factory.mktemp("undisturbed"))


@pytest.fixture
def small_batches(monkeypatch):
    """A pass can be saved once in a batch: here at nearly every end of a deflate block."""
    made = functools.partial(gzip_stream.GzipInflater, batch_bytes=10_000)
    monkeypatch.setattr(gzip_stream, "GzipInflater", made)
    monkeypatch.setattr(pump, "_POLL_S", 0.01)  # threads notice sooner that they are to end


class _InterruptedError(Exception):
    pass


def interrupted_again_and_again(archive, folder, *, chunk_bytes, step=0):
    """A pass that is broken off wherever it has come further; and what its states held.

    Returns:
        What the pass that came to the end found, its places, and by kind of state how often one was gone on from.
    """
    places, seen, furthest = indexing.places_in_zoo(folder, "e"), collections.Counter(), [-1]

    def progress(done, total):
        if done > furthest[0] + step:
            furthest[0] = done
            raise _InterruptedError

    for _ in range(5000):
        try:
            return *passes.indexed(archive, folder, chunk_bytes=chunk_bytes, save_bytes=1, progress=progress), seen
        except _InterruptedError:
            assert not places.index.exists()
            with journal.Journal(places.journal) as log:
                saved, blobs = log.progress(), log.blobs()
            seen["saved"] += bool(saved)
            seen["member"] += bool(saved) and saved["tar"]["member"] is not None
            seen["content"] += "passing" in blobs
            seen["waiting"] += any(key.startswith("waiting") for key in blobs)
            seen["points"] += bool(saved) and bool(saved["plan"]["maker"])
    raise AssertionError("the pass does not get on")


@pytest.mark.usefixtures("small_batches")
def test_from_every_state_the_pass_ends_the_same(tmp_path, archive, undisturbed):
    facts, places, seen = interrupted_again_and_again(archive, tmp_path, chunk_bytes=20_000)
    assert facts == undisturbed[0]
    assert facts.state == "sound"
    assert facts.md5 == hashlib.md5(archive.read_bytes()).hexdigest()
    assert passes.files_below(places.index.parent).keys() == passes.files_below(undisturbed[1].index.parent).keys()
    for path, other in ((places.index, undisturbed[1].index), (places.run_table, undisturbed[1].run_table)):
        assert path.read_bytes() == other.read_bytes()
    assert places.recipe.read_text() == '{"seed": 1}'
    assert min(seen[kind] for kind in ("saved", "member", "content", "waiting", "points")) >= 2, seen


def test_small_chunks_do_not_keep_a_pass_from_being_saved(tmp_path, archive):
    """Otherwise a kill would cost the whole pass."""
    saves = set()

    def progress(done, total):
        with journal.Journal(tmp_path / "e" / ".archive.index.sqlite.part") as log:
            saves.add(log.progress()["inflater"]["boundary"]["offset"] if log.progress() else 0)

    passes.indexed(archive, tmp_path, chunk_bytes=5000, save_bytes=1, progress=progress)
    assert len(saves) >= 2


@pytest.mark.usefixtures("small_batches")
def test_over_a_slow_line_a_pass_is_saved_by_the_clock(tmp_path, archive, monkeypatch):
    def num_saves(folder):
        saves = set()

        def progress(done, total):
            with journal.Journal(folder / "e" / ".archive.index.sqlite.part") as log:
                saves.add(log.progress()["inflater"]["boundary"]["offset"] if log.progress() else 0)

        passes.indexed(archive, folder, chunk_bytes=5000, progress=progress)
        return len(saves)

    assert num_saves(tmp_path / "quick") == 1
    monkeypatch.setattr(scan, "SAVE_S", 0.0)
    assert num_saves(tmp_path / "slow") > 5


def damaged(archive, tmp_path, *shares):
    path = tmp_path / "damaged.tar.gz"
    path.write_bytes(archive.read_bytes())
    for share in shares:
        archives.flip(path, int(share * path.stat().st_size), 0x55)
    return path


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize("shares", [(0.6,), (0.3, 0.55, 0.9)])
def test_also_over_damage(tmp_path, archive, shares):
    path = damaged(archive, tmp_path, *shares)
    facts, places = passes.indexed(path, tmp_path / "undisturbed")
    assert facts.state == "damaged"
    assert facts.md5 == hashlib.md5(path.read_bytes()).hexdigest()
    again, again_places, seen = interrupted_again_and_again(path, tmp_path / "again", chunk_bytes=50_000, step=90_000)
    assert seen["saved"]
    assert again == facts
    assert again_places.index.read_bytes() == places.index.read_bytes()


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7, 0.85])
def test_members_behind_damage_are_found_and_can_be_fetched(tmp_path, archive, undisturbed, share):
    path = damaged(archive, tmp_path, share)
    facts, places = passes.indexed(path, tmp_path / "zoo")
    assert facts.state == "damaged"
    states, expected = passes.states(places), passes.states(undisturbed[1])
    # Of the members, one is hit, and what is near it may be lost with it.
    lost = [name for name in expected if states.get(name) in (None, "damaged")]
    assert 1 <= len(lost) <= 6
    assert list(expected)[-1] in states
    result = passes.fetched(path, tmp_path / "zoo")
    original, found = zoo_files(), passes.run_files_below(tmp_path / "zoo")
    assert all(original[name] == content for name, content in found.items())
    sound = passes.fetchable(places)
    assert sound == found.keys(), result.problems
    assert len(sound) >= 6


def test_damage_on_the_way_is_no_damage_of_the_archive(tmp_path, archive, undisturbed):
    with fault_server.FaultServer(archive.parent) as server:
        whole = f"bytes=0-{archive.stat().st_size - 1}"
        server.faults = fault_server.Faults(only=lambda method, _, asked: asked == whole, flip_at=400_000, times=1)
        places = indexing.places_in_zoo(tmp_path, "e")
        with pytest.raises(errors.NetworkError, match="came differently when they were read again"):
            indexing.make(server.url(archive.name), places, options=FAST)
        result = indexing.make(server.url(archive.name), places, options=FAST)
    assert result.facts.faults == ()
    assert passes.members(places) == passes.members(undisturbed[1])


def test_an_object_that_changes_meanwhile(tmp_path, archive):
    served = tmp_path / "served"
    served.mkdir()
    path = served / "a.tar.gz"
    path.write_bytes(archive.read_bytes())
    with fault_server.FaultServer(served) as server:
        places = indexing.places_in_zoo(tmp_path, "e")
        server.change_after = (2, lambda: archives.flip(path, -1))
        with pytest.raises(errors.MismatchError, match="changed"):
            indexing.make(server.url("a.tar.gz"), places, options=FAST)
        assert not places.index.exists()


@pytest.mark.usefixtures("small_batches")
def test_a_journal_of_another_object_is_not_gone_on_with(tmp_path, archive):
    path = tmp_path / "a.tar.gz"
    path.write_bytes(archive.read_bytes())

    def progress(done, total):
        if done > 1_000_000:
            raise _InterruptedError

    with pytest.raises(_InterruptedError):
        passes.indexed(path, tmp_path / "zoo", save_bytes=1, chunk_bytes=50_000, progress=progress)
    archives.truncate(path, -1)
    with pytest.raises(errors.MismatchError, match=r"not what the pass in .*\.part began with: now .*Delete that file"):
        passes.indexed(path, tmp_path / "zoo")
    indexing.places_in_zoo(tmp_path / "zoo", "e").journal.unlink()
    assert passes.indexed(path, tmp_path / "zoo")[0].state == "damaged"


def test_a_pass_that_cannot_write_its_results_only_repeats_that(tmp_path, archive, undisturbed):
    places, calls = indexing.places_in_zoo(tmp_path, "e"), []
    places.run_table.mkdir(parents=True)
    with pytest.raises(IsADirectoryError):
        passes.indexed(archive, tmp_path)
    places.run_table.rmdir()
    facts, _ = passes.indexed(archive, tmp_path, progress=lambda *numbers: calls.append(numbers))
    assert calls == []
    assert facts == undisturbed[0]
    assert places.index.read_bytes() == undisturbed[1].index.read_bytes()
    assert passes.files_below(tmp_path).keys() == {
        "e/archive.index.sqlite", "e/run_table.npz", "e/recipe.json", "e/.archive.index.sqlite.lock"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (b"", errors.DamagedFileError, r"a\.tar\.gz"),
        (b"no gzip file at all" * 100, scan.UnreadableArchiveError, r"a\.tar\.gz.*not a gzip file"),
        (archives.gz(b"no tar" * 1000), scan.UnreadableArchiveError, r"a\.tar\.gz: not a tar archive: .*no tar header"),
        (archives.hostile("huge_size"), errors.UnsafeArchiveError, r"a\.tar\.gz: byte 3584.*declares 11258999"),
        (archives.gz(archives.tar_bytes([]))[:15], errors.DamagedFileError, r"a\.tar\.gz"),
    ],
)
def test_what_is_no_archive_of_a_zoo(tmp_path, content, error, message):
    path = tmp_path / "a.tar.gz"
    path.write_bytes(content)
    with pytest.raises(error, match=message):
        passes.indexed(path, tmp_path / "zoo")
    places = indexing.places_in_zoo(tmp_path / "zoo", "e")
    assert not places.index.exists()
    if error is scan.UnreadableArchiveError:
        assert not places.journal.exists()


def test_an_empty_archive_is_an_archive(tmp_path):
    path = passes.write(tmp_path / "a.tar.gz", {})
    facts, places = passes.indexed(path, tmp_path / "zoo")
    assert (facts.state, facts.num_runs, facts.experiment, passes.members(places)) == ("sound", 0, "experiment", [])
    assert not places.run_table.exists()


def test_faults_are_counted_and_not_gathered_for_ever(tmp_path):
    good = archives.raw_member(archives.header("e/a.txt", 0))
    tar = b"".join(good + bytes([7]) * 512 for _ in range(300)) + archives.END
    path = tmp_path / "a.tar.gz"
    path.write_bytes(archives.gz(tar))
    facts, places = passes.indexed(path, tmp_path / "zoo")
    assert len(facts.faults) == 101
    assert facts.faults[0].startswith("the tar stream is damaged behind e/a.txt: byte 512")
    assert facts.faults[-1] == "and more, of which only the members are named"
    assert len(passes.members(places)) == 300


def test_what_the_digests_were_compared_with(tmp_path, archive):
    content = archive.read_bytes()
    md5 = hashlib.md5(content).hexdigest()
    facts, _ = passes.indexed(archive, tmp_path / "known", md5=md5)
    assert facts.checked == "verified: MD5 known for this archive, CRC32 of gzip"
    assert (facts.md5, facts.crc32c, facts.size) == (md5, google_crc32c.value(content), len(content))
    facts, _ = passes.indexed(archive, tmp_path / "unknown")
    assert facts.checked == "CRC32 of gzip agrees; no MD5 or CRC32C was known to compare with"
    wrong = "0" * 32
    facts, _ = passes.indexed(archive, tmp_path / "wrong", md5=wrong)
    assert facts.checked == "not verified"
    assert facts.faults == (f"MD5 is {md5}, the one known for this archive is {wrong}",)
    assert facts.num_runs == 4
    with fault_server.FaultServer(archive.parent) as server:
        server.hashes = True
        places = indexing.places_in_zoo(tmp_path / "served", "e")
        facts = indexing.make(server.url(archive.name), places, scan.Expected(md5), FAST).facts
    assert facts.checked == (
        "verified: MD5 known for this archive, MD5 stated by the server, CRC32C stated by the server, CRC32 of gzip"
    )


def test_a_server_that_states_another_md5_is_not_read_from(tmp_path, archive):
    places, wrong = indexing.places_in_zoo(tmp_path, "e"), "0" * 32
    with fault_server.FaultServer(archive.parent) as server:
        server.hashes = True
        with pytest.raises(errors.IntegrityError, match=f"the server states the MD5 [0-9a-f]{{32}}, .* has {wrong}"):
            indexing.make(server.url(archive.name), places, scan.Expected(wrong), FAST)
        assert server.bytes_sent < 1000
        with pytest.raises(errors.IntegrityError, match="the archive that is known has 7: it is another one"):
            indexing.make(server.url(archive.name), places, scan.Expected(size=7), FAST)
        assert server.bytes_sent < 2000
    assert not places.index.exists()


@pytest.mark.parametrize("md5_is_known", [True, False])
def test_digests_that_the_server_says_otherwise(md5_is_known, monkeypatch):
    """Also where the state of MD5 could not be kept."""
    sums = digests.StreamDigests()
    sums.update(b"content")
    if not md5_is_known:
        monkeypatch.setattr(sums, "md5_hex", lambda: None)
    state = source.ObjectState("http://x/a.tar.gz", 7, None, "0" * 32, 5)
    _, faults = scan._compare(sums, None, state)
    assert faults[-1] == f"CRC32C is {sums.crc32c:08x}, the one stated by the server is 00000005"
    assert len(faults) == 1 + md5_is_known
    right = source.ObjectState("http://x/a.tar.gz", 7, None, hashlib.md5(b"content").hexdigest(), sums.crc32c)
    checked, faults = scan._compare(sums, None, right)
    assert faults == []
    assert ("MD5 was not computed" in checked) == (not md5_is_known)


def test_runs_that_cannot_stand_beside_the_others_are_damaged(tmp_path):
    files = passes.run_files(0.5, 1) | passes.run_files(0.5, 2)
    files["e/0.5/3/aux_arrays.npz"] = files["e/0.5/1/aux_arrays.npz"]
    path = passes.write(tmp_path / "a.tar.gz", files)
    facts, places = passes.indexed(path, tmp_path / "zoo")
    assert (facts.num_runs, facts.state, facts.faults) == (2, "damaged", ("1 member is damaged",))
    with index.Index(places.index) as stored:
        (faulty,) = stored.faulty_members()
    assert faulty.reason == "0.5/3/aux_arrays.npz: the same record as run 0.5/1"
