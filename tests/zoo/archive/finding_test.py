"""Where an index is looked for, in which order, and what is said where there is none."""

import pytest

from tests.zoo.archive import passes
from tests.zoo.remote import fault_server
from zoo import errors, files, layout, registry
from zoo.archive import finding, indexing
from zoo.remote import source

FAST = source.Options(num_tries=2, backoff_s=0.01, timeout_s=2.0)


@pytest.fixture
def made(tmp_path):
    """A folder with an archive and its index beside it."""
    folder = tmp_path / "published"
    folder.mkdir()
    archive = passes.write(folder / "a.tar.gz", passes.run_files(0.5, 1))
    indexing.make(str(archive), indexing.places_beside(archive))
    return folder


@pytest.fixture
def server(made):
    with fault_server.FaultServer(made) as running:
        yield running


def found(url, tmp_path, *arguments, **options):
    return finding.index_path(str(url), tmp_path / "zoo", "e", *arguments, FAST, **options)


def asks_for_content(method, path, wanted):
    """How long a file is, is asked by the range 0-0."""
    return wanted not in ("", "bytes=0-0")


def test_one_that_is_named_comes_first(made, tmp_path):
    named = tmp_path / "named.sqlite"
    named.write_bytes((made / "a.tar.gz.index.sqlite").read_bytes())
    layout.archive_index_path(tmp_path / "zoo", "e").parent.mkdir(parents=True)
    layout.archive_index_path(tmp_path / "zoo", "e").write_text("not looked at")
    assert found(made / "a.tar.gz", tmp_path, str(named)) == named
    assert found("gs://bucket/a.tar.gz", tmp_path, f"file://{named}", offline=True) == named


def test_then_that_of_the_experiment_then_that_beside_the_archive(made, tmp_path):
    beside = made / "a.tar.gz.index.sqlite"
    assert found(made / "a.tar.gz", tmp_path, None) == beside
    target = layout.archive_index_path(tmp_path / "zoo", "e")
    target.parent.mkdir(parents=True)
    target.write_bytes(beside.read_bytes())
    assert found(made / "a.tar.gz", tmp_path, None) == target
    assert found("http://127.0.0.1:9/a.tar.gz", tmp_path, None, offline=True) == target


def test_one_that_is_published_is_downloaded_once(made, server, tmp_path):
    target = layout.published_index_path(tmp_path / "zoo", "e")
    for _ in range(2):
        assert found(server.url("a.tar.gz"), tmp_path, None) == target
        num_requests = len(server.requests)
    assert target.read_bytes() == (made / "a.tar.gz.index.sqlite").read_bytes()
    assert found(server.url("a.tar.gz"), tmp_path, None) == target
    assert len(server.requests) == num_requests
    target.unlink()
    assert found(made / "a.tar.gz", tmp_path, server.url("a.tar.gz.index.sqlite")) == target


def test_where_there_is_none(made, server, tmp_path):
    target = layout.published_index_path(tmp_path / "zoo", "e")
    (made / "a.tar.gz.index.sqlite").unlink()
    with pytest.raises(
        errors.MissingFileError, match=r"a\.tar\.gz\.index\.sqlite: no index of .*zoo_stream and zoo_index"
    ):
        found(made / "a.tar.gz", tmp_path, None)
    with pytest.raises(
        errors.MissingFileError, match=r"published\.index\.sqlite: no index of http.*zoo_stream and zoo_index"
    ):
        found(server.url("a.tar.gz"), tmp_path, None)
    with pytest.raises(errors.MissingFileError, match=r"none\.sqlite: no such file"):
        found(made / "a.tar.gz", tmp_path, str(tmp_path / "none.sqlite"))
    with pytest.raises(errors.MissingFileError, match="not there, and nothing is downloaded with --offline"):
        found(server.url("a.tar.gz"), tmp_path, None, offline=True)
    server.faults = fault_server.Faults(status=503)
    with pytest.raises(errors.NetworkError):
        found(server.url("a.tar.gz"), tmp_path, None)
    assert not target.exists()


def test_what_is_no_index_is_refused_wherever_it_is(made, server, tmp_path):
    (made / "a.tar.gz.index.sqlite").write_text("no index")
    with pytest.raises(errors.DamagedFileError, match="not a sound index of an archive"):
        found(made / "a.tar.gz", tmp_path, None)
    with pytest.raises(errors.MissingFileError, match=r"what the server has there is no index: .*not a sound index"):
        found(server.url("a.tar.gz"), tmp_path, None)
    with pytest.raises(errors.DamagedFileError, match=r"a\.tar\.gz\.index\.sqlite: not a sound index"):
        found("gs://bucket/a.tar.gz", tmp_path, str(made / "a.tar.gz.index.sqlite"))
    folder = layout.experiment_directory(tmp_path / "zoo", "e")
    assert [path.name for path in folder.iterdir() if path.suffix != ".lock"] == []


def test_a_query_stays_where_it_is(made, server, tmp_path):
    path = found(server.url("a.tar.gz") + "?X-Signature=SECRET", tmp_path, None)
    assert path.read_bytes() == (made / "a.tar.gz.index.sqlite").read_bytes()
    (made / "a.tar.gz.index.sqlite").unlink()
    path.unlink()
    with pytest.raises(errors.MissingFileError) as caught:
        found(server.url("a.tar.gz") + "?X-Signature=SECRET", tmp_path, None)
    assert "SECRET" not in str(caught.value)


def test_an_index_can_be_looked_at_without_leaving_anything(server, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    assert found(server.url("a.tar.gz"), tmp_path, None, download_to=other).parent == other
    assert not (tmp_path / "zoo").exists()


def test_what_is_much_too_large_for_an_index_is_not_downloaded(server, tmp_path, monkeypatch):
    monkeypatch.setattr(finding, "_MAX_BYTES", 100)
    with pytest.raises(errors.MissingFileError, match="no index of"):
        found(server.url("a.tar.gz"), tmp_path, None)


def test_the_one_that_a_manifest_names_must_have_its_digest(made, server, tmp_path):
    place = made / "a.tar.gz.index.sqlite"
    known = registry.PublishedFile(server.url("other name.sqlite"), place.stat().st_size, files.sha256_of_file(place))
    sound = place.rename(made / "other name.sqlite").read_bytes()
    assert found(server.url("a.tar.gz"), tmp_path, None, published=known).read_bytes() == sound
    target = layout.published_index_path(tmp_path / "zoo", "e")
    target.unlink()
    # As sound as the other, but of other members.
    changed = passes.changed_index(made / "other name.sqlite", tmp_path, "UPDATE member SET state = 'unchecked'")
    (made / "other name.sqlite").write_bytes(changed.read_bytes())
    with pytest.raises(
        errors.IntegrityError,
        match=r"other%20name\.sqlite: its SHA-256 is [0-9a-f]{64}, [0-9a-f]{64} according to the man",
    ):
        found(server.url("a.tar.gz"), tmp_path, None, published=known)
    assert [path for path in target.parent.iterdir() if path.suffix != ".lock"] == []
    # Who names one knows why.
    named = found(server.url("a.tar.gz"), tmp_path, server.url("other name.sqlite"), published=known)
    assert named.read_bytes() == changed.read_bytes()


@pytest.mark.parametrize(
    "fault",
    [
        {"cut_after": 5000, "times": 3},
        {"status": 503, "times": 1},
        {"stall_after": 5000, "times": 1},
        {"ignore_range": True},
    ],
    ids=lambda fault: next(iter(fault)),
)
def test_a_server_that_fails_for_a_moment_still_gives_the_index(made, server, tmp_path, fault):
    server.faults = fault_server.Faults(only=asks_for_content, **fault)
    path = found(server.url("a.tar.gz"), tmp_path, None)
    assert server.faults.num_struck
    assert path.read_bytes() == (made / "a.tar.gz.index.sqlite").read_bytes()


def test_an_index_that_is_garbled_on_the_way_is_not_kept(made, server, tmp_path):
    place = made / "a.tar.gz.index.sqlite"
    url, size = server.url(place.name), place.stat().st_size
    known = registry.PublishedFile(url, size, files.sha256_of_file(place))
    server.faults = fault_server.Faults(flip_at=size // 2, only=asks_for_content, times=1)
    with pytest.raises((errors.IntegrityError, errors.MissingFileError)):
        found(server.url("a.tar.gz"), tmp_path, None, published=known)
    assert found(server.url("a.tar.gz"), tmp_path, None, published=known).read_bytes() == place.read_bytes()
