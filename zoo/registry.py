"""Known zoos: where their archives are, the MD5 of each, and what was trained on what.

Three are published and built in: each is one tar.gz of an experiment in the layout of `zoo.layout`, in a public bucket
of Google Cloud Storage. A registry file adds others,

    {"schema_version": 1, "experiments": [
        {"name": "...", "url": "...", "md5": "...", "architecture": "...", "dataset": "...", "num_classes": 10}]}

of which only name and url must be there. A url without a protocol is relative to the registry file. What `zoo_pack`
writes beside an archive is such a file; by its member "files" it also names the run table and the seek index that are
published with the archive, with their digests.
"""

from collections.abc import Mapping
import dataclasses
import json
import re
import types
from typing import Any

from zoo import errors, layout
from zoo.remote import addresses, source

SCHEMA_VERSION = 1
_BUCKET = "gs://gresearch/heldout-training-checkpoints"
_MAX_BYTES = 1 << 24
# An error of the decoder would show all of what it could not decode.
_MOST_SHOWN = 200
_MD5 = re.compile("[0-9a-fA-F]{32}")
_SHA256 = re.compile("[0-9a-f]{64}")
# Names of what `zoo_pack` publishes with an archive, behind that of the experiment.
RUN_TABLE_END, INDEX_END = ".run_table.npz", ".tar.gz.index.sqlite"


@dataclasses.dataclass(frozen=True)
class PublishedFile:
    """A file that is published with an archive.

    Attributes:
        url: where it is.
        size: its bytes.
        sha256: hexadecimal digest.
    """

    url: str
    size: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class Published:
    """One known zoo.

    Attributes:
        name: of the experiment.
        url: of the archive: gs://..., https://... or a path.
        md5: hexadecimal digest of the archive; None where it is not known.
        architecture: name of the model; None where it is not known, as for the following.
        dataset: name of the data set.
        num_classes: number of its classes.
        size: bytes of the archive; None where it is not known exactly.
        approximate_size: bytes of the archive, for people.
        run_table: the run table of its runs; None where none is published with it.
        index: the seek index of the archive; None where none is published with it.
    """

    name: str
    url: str
    md5: str | None = None
    architecture: str | None = None
    dataset: str | None = None
    num_classes: int | None = None
    size: int | None = None
    approximate_size: int | None = None
    run_table: PublishedFile | None = None
    index: PublishedFile | None = None


def _published(name: str, md5: str, architecture: str, dataset: str, num_classes: int, gigabytes: int) -> Published:
    url = f"{_BUCKET}/{name}.tar.gz"
    return Published(name, url, md5, architecture, dataset, num_classes, approximate_size=gigabytes * 10**9)


PUBLISHED: Mapping[str, Published] = types.MappingProxyType(
    {
        zoo.name: zoo
        for zoo in (
            _published("cifar10-inception", "bc3b75203381709f8224810946be14b1", "small_inception", "cifar10", 10, 239),
            _published(
                "cifar100-inception", "f87218368528afa6e2407c8410f1ffa1", "small_inception", "cifar100", 100, 244
            ),
            _published("imagenet-resnet50", "64c39ef7702462b83959af9de622b4b8", "resnet50", "imagenet", 1000, 367),
        )
    }
)


def read(url: str, options: source.Options | None = None) -> dict[str, Published]:
    """Reads a registry file.

    Args:
        url: its path or address.
        options: how a remote one is read.

    Returns:
        The zoos by name.

    Raises:
        MissingFileError: there is no such file.
        DamagedFileError: it is no registry.
        NetworkError: it cannot be read.
    """
    content = source.read_small(url, _MAX_BYTES, options or source.Options())
    try:
        stored = json.loads(content.decode("utf-8"))
        if not isinstance(stored, dict) or stored.get("schema_version") != SCHEMA_VERSION:
            raise ValueError(f"expected an object with schema_version {SCHEMA_VERSION}")
        entries = [_with_files(_entry(value, url), stored.get("files")) for value in stored["experiments"]]
        names = [entry.name for entry in entries]
        if len(set(names)) < len(names):
            raise ValueError("a name is there twice")
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise errors.DamagedFileError(
            f"{addresses.display(url)}: not a registry of zoos: {str(error)[:_MOST_SHOWN]}. Expected "
            '{"schema_version": 1, "experiments": [{"name": "...", "url": "...", "md5": "..."}]}'
        ) from error
    return {entry.name: entry for entry in entries}


def known(registry_url: str | None = None, options: source.Options | None = None) -> dict[str, Published]:
    """All known zoos by name; those of a registry file come before those built in.

    Raises:
        As `read`.
    """
    return dict(PUBLISHED) | ({} if registry_url is None else read(registry_url, options))


def find(name: str | None, registry_url: str | None = None, options: source.Options | None = None) -> Published:
    """One of the `known` zoos by name.

    Args:
        name: of its experiment; None for the only one of the registry file.
        registry_url: path or address of a registry file.
        options: how a remote one is read.

    Raises:
        InvalidValueError: there is none of this name.
        UsageError: no name, and not exactly one in the registry file.
        As `read`.
    """
    zoos = known(registry_url, options)
    if name is None:
        further = [zoo for name, zoo in zoos.items() if zoo is not PUBLISHED.get(name)]
        if len(further) == 1:
            return further[0]
        choice = ", ".join(sorted(zoo.name for zoo in further or zoos.values()))
        where = "or of --registry" if not further else f"of {addresses.display(registry_url or '')}"
        raise errors.UsageError(f"give --experiment (one of {choice}, {where}) or --archive; see --help")
    if name not in zoos:
        raise errors.InvalidValueError(
            f"--experiment={name}: no such zoo is known; known are {', '.join(sorted(zoos))}. Name another, give the "
            "address of its archive with --archive, or add it to a file given with --registry"
        )
    return zoos[name]


def _with_files(entry: Published, stored: Any) -> Published:
    """An entry with the files that the registry file names, which lie beside the archive."""
    if stored is None:
        return entry
    if not isinstance(stored, dict):
        raise ValueError(f"files is {stored!r}, expected an object")
    run_table, index = (_file(f"{entry.name}{end}", stored, entry.url) for end in (RUN_TABLE_END, INDEX_END))
    return dataclasses.replace(entry, run_table=run_table, index=index)


def _file(name: str, stored: dict[str, Any], archive_url: str) -> PublishedFile | None:
    if name not in stored:
        return None
    value = stored[name]
    size, sha256 = (value.get(key) if isinstance(value, dict) else None for key in ("size", "sha256"))
    if not isinstance(size, int) or size < 0 or not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
        raise ValueError(f"{name} in files is {value!r}, expected its size and sha256")
    return PublishedFile(source.join(archive_url, name), size, sha256)


def _entry(value: Any, url: str) -> Published:
    if not isinstance(value, dict):
        raise ValueError(f"an experiment is {value!r}, expected an object")
    texts = {name: value.get(name) for name in ("name", "url", "md5", "architecture", "dataset")}
    for name, text in texts.items():
        if not isinstance(text, str | None) or (text is None and name in ("name", "url")):
            raise ValueError(f"{name} is {text!r}, expected text")
    name, address, md5 = str(value["name"]), str(value["url"]), texts["md5"]
    layout.check_experiment_name(name)
    if md5 is not None and not _MD5.fullmatch(md5):
        raise ValueError(f"md5 of {name} is {md5!r}, expected 32 hexadecimal digits")
    num_classes, size = value.get("num_classes"), value.get("size")
    for key, number in (("num_classes", num_classes), ("size", size)):
        if not isinstance(number, int | None):
            raise ValueError(f"{key} of {name} is {number!r}, expected a number")
    return Published(
        name=name,
        url=source.join(url, address),
        md5=None if md5 is None else md5.lower(),
        architecture=texts["architecture"],
        dataset=texts["dataset"],
        num_classes=num_classes,
        size=size,
    )
