"""The facts about the published zoos, and registry files that add others."""

import dataclasses
import json
import re

import pytest

from tests.zoo.remote import fault_server
from zoo import errors, layout, registry
from zoo.remote import source


def test_published_zoos():
    found = {
        name: (zoo.url, zoo.md5, zoo.architecture, zoo.dataset, zoo.num_classes)
        for name, zoo in registry.PUBLISHED.items()
    }
    bucket = "gs://gresearch/heldout-training-checkpoints"
    assert found == {
        "cifar10-inception": (
            f"{bucket}/cifar10-inception.tar.gz",
            "bc3b75203381709f8224810946be14b1",
            "small_inception",
            "cifar10",
            10,
        ),
        "cifar100-inception": (
            f"{bucket}/cifar100-inception.tar.gz",
            "f87218368528afa6e2407c8410f1ffa1",
            "small_inception",
            "cifar100",
            100,
        ),
        "imagenet-resnet50": (
            f"{bucket}/imagenet-resnet50.tar.gz",
            "64c39ef7702462b83959af9de622b4b8",
            "resnet50",
            "imagenet",
            1000,
        ),
    }


def test_names_are_experiment_names_and_digests_are_md5():
    for name, zoo in registry.PUBLISHED.items():
        layout.check_experiment_name(name)
        assert zoo.name == name
        assert re.fullmatch("[0-9a-f]{32}", zoo.md5)


def write(path, *entries, **changes):
    path.write_text(json.dumps({"schema_version": 1, "experiments": list(entries)} | changes))
    return str(path)


FULL = {
    "name": "mine",
    "url": "mine.tar.gz",
    "md5": "0123456789abcdef" * 2,
    "architecture": "mlp",
    "dataset": "digits",
    "num_classes": 10,
}


def test_a_registry_file(tmp_path):
    others = [{"name": "far", "url": "https://example.org/far.tar.gz"}, {"name": "b", "url": "gs://b/b.tgz", "size": 3}]
    found = registry.read(write(tmp_path / "zoos.json", FULL, *others))
    assert found == {
        "mine": registry.Published(**(FULL | {"url": str(tmp_path / "mine.tar.gz")})),
        "far": registry.Published("far", "https://example.org/far.tar.gz"),
        "b": registry.Published("b", "gs://b/b.tgz", size=3),
    }
    assert registry.read(write(tmp_path / "none.json")) == {}


def test_a_registry_on_a_server(tmp_path):
    write(tmp_path / "zoos.json", FULL)
    with fault_server.FaultServer(tmp_path) as server:
        found = registry.read(server.url("zoos.json"))
        assert found["mine"].url == server.url("mine.tar.gz")
        write(tmp_path / "zoos.json", FULL | {"url": "file:///etc/passwd"})
        with pytest.raises(errors.DamagedFileError, match="not a registry of zoos"):
            registry.read(server.url("zoos.json"))
        server.faults = fault_server.Faults(status=503)
        options = source.Options(num_tries=2, backoff_s=0.01)
        with pytest.raises(errors.NetworkError):
            registry.read(server.url("zoos.json"), options)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("mine", "an experiment is 'mine', expected an object"),
        (None, "an experiment is None"),
        ({"url": "a"}, "name is None, expected text"),
        ({"name": "a"}, "url is None, expected text"),
        (FULL | {"name": 3}, "name is 3, expected text"),
        (FULL | {"name": "../up"}, r"experiment is .*\.\./up"),
        (FULL | {"url": ["a"]}, r"url is \['a'\], expected text"),
        (FULL | {"md5": "abc"}, "md5 of mine is 'abc', expected 32 hexadecimal digits"),
        (FULL | {"md5": "G" * 32}, "md5 of mine is"),
        (FULL | {"size": "large"}, "size of mine is 'large', expected a number"),
        (FULL | {"architecture": 1}, "architecture is 1, expected text"),
        (FULL | {"dataset": {}}, "dataset is {}, expected text"),
        (FULL | {"num_classes": "ten"}, "num_classes of mine is 'ten', expected a number"),
    ],
)
def test_entries_that_are_none(tmp_path, entry, message):
    path = write(tmp_path / "zoos.json", {"name": "first", "url": "first.tar.gz"}, entry)
    with pytest.raises(errors.DamagedFileError, match=message) as caught:
        registry.read(path)
    assert str(caught.value).startswith(f"{path}: not a registry of zoos")


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[1]",
        "{",
        "[" * 100_000,
        '{"schema_version": 2, "experiments": []}',
        '{"experiments": []}',
        '{"schema_version": 1}',
        '{"schema_version": 1, "experiments": 3}',
        '{"schema_version": 1, "experiments": {"name": "mine"}}',
        json.dumps({"schema_version": 1, "experiments": [FULL, FULL]}),
    ],
)
def test_files_that_are_no_registry(tmp_path, content):
    (tmp_path / "zoos.json").write_text(content)
    with pytest.raises(errors.DamagedFileError, match=r"zoos\.json: not a registry of zoos: .* Expected \{"):
        registry.read(str(tmp_path / "zoos.json"))


def test_no_registry_and_one_that_is_too_large(tmp_path):
    with pytest.raises(errors.MissingFileError, match=r"none\.json"):
        registry.read(str(tmp_path / "none.json"))
    (tmp_path / "large.json").write_bytes(bytes((1 << 24) + 1))
    with pytest.raises(errors.InvalidValueError, match=r"large\.json"):
        registry.read(str(tmp_path / "large.json"))


def test_those_of_a_file_come_before_those_built_in(tmp_path):
    path = write(tmp_path / "zoos.json", FULL, FULL | {"name": "cifar10-inception"})
    assert registry.find("cifar10-inception").url.startswith("gs://gresearch/")
    assert registry.find("cifar10-inception", path).url == str(tmp_path / "mine.tar.gz")
    assert registry.find("imagenet-resnet50", path) == registry.PUBLISHED["imagenet-resnet50"]
    mine = registry.find("mine", path)
    assert dataclasses.replace(mine, url="mine.tar.gz") == registry.Published(**FULL)
    with pytest.raises(errors.InvalidValueError, match="--experiment=mine: no such zoo is known; known are"):
        registry.find("mine")


def test_sizes_for_people_are_there():
    assert [zoo.approximate_size // 10**9 for zoo in registry.PUBLISHED.values()] == [239, 244, 367]


def test_a_file_that_is_no_text_is_refused_in_a_line(tmp_path):
    path = tmp_path / "archive.tar.gz"
    path.write_bytes(b"\x1f\x8b" * 100_000)
    with pytest.raises(errors.DamagedFileError, match="not a registry of zoos") as caught:
        registry.read(str(path))
    assert len(str(caught.value)) < 1000


FILES = {
    "mine.run_table.npz": {"size": 7, "sha256": "0" * 64},
    "mine.tar.gz.index.sqlite": {"size": 9, "sha256": "1" * 64},
    "../other": 3,
}


def test_files_published_with_an_archive_lie_beside_it(tmp_path):
    found = registry.read(write(tmp_path / "zoos.json", FULL, files=FILES))["mine"]
    assert found.run_table == registry.PublishedFile(str(tmp_path / "mine.run_table.npz"), 7, "0" * 64)
    assert found.index == registry.PublishedFile(str(tmp_path / "mine.tar.gz.index.sqlite"), 9, "1" * 64)
    elsewhere = FULL | {"url": "https://example.org/a/b.tar.gz"}
    found = registry.read(write(tmp_path / "zoos.json", elsewhere, files={"mine.run_table.npz": {}} | FILES))["mine"]
    assert found.run_table.url == "https://example.org/a/mine.run_table.npz"
    assert registry.read(write(tmp_path / "zoos.json", FULL | {"name": "other"}, files=FILES))["other"].index is None


@pytest.mark.parametrize(
    "value", [3, {}, {"size": "7", "sha256": "0" * 64}, {"size": -1, "sha256": "0" * 64}, {"size": 7, "sha256": "0"}]
)
def test_files_without_a_digest_are_refused(tmp_path, value):
    path = write(tmp_path / "zoos.json", FULL, files={"mine.run_table.npz": value})
    with pytest.raises(
        errors.DamagedFileError, match=r"mine\.run_table\.npz in files is .*, expected its size and sha256"
    ):
        registry.read(path)


def test_a_list_of_files_is_refused(tmp_path):
    with pytest.raises(errors.DamagedFileError, match=r"files is \['a'\], expected an object"):
        registry.read(write(tmp_path / "zoos.json", FULL, files=["a"]))


def test_the_only_experiment_of_a_registry_needs_no_name(tmp_path):
    path = write(tmp_path / "zoos.json", FULL)
    assert registry.find(None, path) == registry.find("mine", path)
    path = write(tmp_path / "zoos.json", FULL, FULL | {"name": "yours"})
    with pytest.raises(
        errors.UsageError, match=r"give --experiment \(one of mine, yours, of .*zoos\.json\) or --archive"
    ):
        registry.find(None, path)
    with pytest.raises(
        errors.UsageError, match=r"give --experiment \(one of cifar10-inception, .*, or of --registry\)"
    ):
        registry.find(None)
