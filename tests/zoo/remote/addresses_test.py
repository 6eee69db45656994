"""Addresses: their parts, their siblings, and what messages show of them."""

import pathlib

import pytest

from zoo import errors
from zoo.remote import addresses


@pytest.mark.parametrize(
    ("url", "protocol", "name"),
    [
        ("zoo.tar.gz", "file", "zoo.tar.gz"),
        ("/data/a b/zoo.tar.gz", "file", "zoo.tar.gz"),
        ("file:///data/a%20b/zoo%20.tar.gz", "file", "zoo .tar.gz"),
        ("gs://bucket/a/zoo.tar.gz", "gs", "zoo.tar.gz"),
        ("gs://bucket/a/50%20.tar.gz", "gs", "50%20.tar.gz"),
        ("HTTPS://host/a/zoo%20x.tar.gz?signature=a/b", "https", "zoo x.tar.gz"),
        ("s3://bucket/zoo.tar.gz", "s3", "zoo.tar.gz"),
    ],
)
def test_parts(url, protocol, name):
    assert addresses.protocol(url) == protocol
    assert addresses.name(url) == name


def test_local_paths(tmp_path):
    assert addresses.local_path(str(tmp_path)) == str(tmp_path)
    assert addresses.local_path((tmp_path / "a b").as_uri()) == str(tmp_path / "a b")
    assert addresses.local_path("~/x") == str(pathlib.Path.home() / "x")
    assert addresses.local_path("gs://bucket/x") is None


@pytest.mark.parametrize(
    ("base", "relative", "expected"),
    [
        ("/zoos/a.json", "a.tar.gz", "/zoos/a.tar.gz"),
        ("a.json", "a.tar.gz", "a.tar.gz"),
        ("/zoos/a.json", "../b/a.tar.gz", "/b/a.tar.gz"),
        ("/zoos/a.json", "/other/a.tar.gz", "/other/a.tar.gz"),
        ("/zoos/a.json", "gs://bucket/a.tar.gz", "gs://bucket/a.tar.gz"),
        ("file:///zoos/a.json", "a.tar.gz", "file:///zoos/a.tar.gz"),
        ("gs://bucket/x/a.json", "a.tar.gz", "gs://bucket/x/a.tar.gz"),
        ("gs://bucket/a.json", "a.tar.gz", "gs://bucket/a.tar.gz"),
        ("gs://bucket/x/a.json", "../../../a.tar.gz", "gs://bucket/a.tar.gz"),
        ("https://host/x/a.json?signature=1", "a b.tar.gz", "https://host/x/a%20b.tar.gz"),
        ("https://host/x/a.json", "https://other/b", "https://other/b"),
    ],
)
def test_siblings(base, relative, expected):
    assert addresses.join(base, relative) == expected


@pytest.mark.parametrize("base", ["https://host/a.json", "gs://bucket/a.json"])
def test_a_server_names_no_local_files(base):
    with pytest.raises(errors.InvalidValueError, match=r"names the local file file:///etc/passwd"):
        addresses.join(base, "file:///etc/passwd")
    assert addresses.protocol(addresses.join(base, "/etc/passwd")) != "file"


def test_messages_show_no_secrets():
    url = "https://user:password@host:8000/a/zoo.tar.gz?signature=secret#part"
    assert addresses.display(url) == "https://host:8000/a/zoo.tar.gz"
    assert addresses.display("/a/b?c") == "/a/b?c"
    assert addresses.display("a//user@b") == "a//user@b"
    assert addresses.display("ftp://user:password@host/a?b") == "ftp://host/a?b"
