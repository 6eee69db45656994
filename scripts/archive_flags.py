"""Flags of the programs that work on archives of zoos, and what they mean together."""

import dataclasses
import os

from absl import flags

from scripts import choices, common_flags, transfer_bar
from zoo import errors, layout, registry
from zoo.remote import addresses, source

ARCHIVE = flags.DEFINE_string(
    "archive",
    None,
    "The archive (tar.gz): a path, https://... or gs://... . With --experiment, another place of the archive known by "
    "that name, such as a copy on this machine.",
)
REGISTRY = flags.DEFINE_string(
    "registry",
    os.environ.get("HELDOUT_REGISTRY") or None,
    "File or address of a registry of further experiments, such as the manifest that zoo_pack writes. Without it "
    "$HELDOUT_REGISTRY.",
)
DEST = flags.DEFINE_string(
    "dest", common_flags.DEFAULT_ZOO, "Folder of the zoo that the results go to. Without it $HELDOUT_ZOO."
)
PARALLEL = flags.DEFINE_integer("parallel", 4, "Ranges that are read from a server at the same time.", 1, 64)
TIMEOUT = flags.DEFINE_float(
    "timeout_s", 60.0, "Seconds without a byte after which a connection counts as stalled.", lower_bound=0.001
)
TRIES = flags.DEFINE_integer(
    "num_tries", 8, "Failures in a row, without a byte between them, after which a server is given up.", 1
)
GCS_TOKEN = flags.DEFINE_string(
    "gcs_token", "anon", "Credentials for gs://: anon, google_default, cloud, browser, or a file with a token."
)
DRY_RUN = flags.DEFINE_bool("dry_run", False, "Say what would be read and written, and stop.")
OFFLINE = flags.DEFINE_bool("offline", False, "Ask no server; use what is there, or say what is missing.")

# What every program that reads an archive takes.
READING = ("archive", "registry", "parallel", "timeout_s", "num_tries", "gcs_token", "dry_run", "offline")
_SUFFIXES = (".tar.gz", ".tgz")


@dataclasses.dataclass(frozen=True)
class Archive:
    """Which archive is meant.

    Attributes:
        url: where it is.
        name: of its file.
        experiment: name for its experiment; None if neither flag nor registry tells.
        md5: digest that it must have, None where it is not known.
        size: bytes that it must have, None where it is not known.
        published: what is known of it by the name of its experiment; None where --archive names another place of it.
    """

    url: str
    name: str
    experiment: str | None
    md5: str | None
    size: int | None
    published: registry.Published | None = None

    @property
    def folder(self) -> str:
        """Name of the experiment's folder: its name, else the name of the file without its suffix."""
        if self.experiment is not None:
            return self.experiment
        stem = next((self.name.removesuffix(end) for end in _SUFFIXES if self.name.endswith(end)), self.name)
        layout.check_experiment_name(stem)
        return stem

    @property
    def where(self) -> str:
        """Its address as messages show it."""
        return addresses.display(self.url)

    @property
    def published_index(self) -> registry.PublishedFile | None:
        """The seek index that its manifest names; None where there is none."""
        return None if self.published is None else self.published.index

    @property
    def is_local(self) -> bool:
        """Whether it lies on this machine."""
        return addresses.local_path(self.url) is not None


def options() -> source.Options:
    """How objects are read."""
    return source.Options(
        num_tries=TRIES.value,
        timeout_s=TIMEOUT.value,
        gcs_token=GCS_TOKEN.value,
        num_parallel=PARALLEL.value,
        notice=transfer_bar.note,
    )


def archive() -> Archive:
    """The archive that --archive, --experiment and --registry name.

    Raises:
        UsageError: neither --archive nor --experiment is given, and --registry does not name one experiment alone.
        InvalidValueError: no such experiment is known.
    """
    url, experiment = choices.path(ARCHIVE.value), common_flags.EXPERIMENT.value
    if url and experiment is None:
        return Archive(url, source.name(url), None, None, None)
    if experiment is not None:
        layout.check_experiment_name(experiment)
    registry_url = choices.path(REGISTRY.value)
    if OFFLINE.value and registry_url and addresses.local_path(registry_url) is None:
        if experiment is None:
            where = addresses.display(registry_url)
            raise errors.UsageError(f"--offline: {where} is not asked which experiment it names; give --experiment")
        if not url:
            # What is here may be enough; the registry would have to be asked of a server.
            return Archive(registry_url, f"{experiment}.tar.gz", experiment, None, None)
        registry_url = None
    if not url:
        known_as = registry.find(experiment, registry_url, options())
        name = source.name(known_as.url)
        return Archive(known_as.url, name, known_as.name, known_as.md5, known_as.size, known_as)
    assert experiment is not None
    other = registry.known(registry_url, options()).get(experiment)
    md5, size = (None, None) if other is None else (other.md5, other.size)
    return Archive(url, source.name(url), experiment, md5, size)


def naming() -> list[str]:
    """The flags by which the archive was named, for another program; of an address only what messages may show."""
    flag_values = ((flag, flag.value) for flag in (ARCHIVE, REGISTRY, common_flags.EXPERIMENT, GCS_TOKEN))
    return [f"--{flag.name}={addresses.display(str(value))}" for flag, value in flag_values if flag.present and value]


def ranges_report(opened: source.Source) -> list[str]:
    """What a dry run says of a server that gives no parts of the archive."""
    if opened.accepts_ranges:
        return []
    return [
        f"warning: {addresses.display(opened.state.url)}: the server sends the whole object whatever is asked for, so "
        "after a kill all that was read before is sent again; single runs can be fetched from a download only"
    ]


def refuse_offline(found: Archive) -> None:
    """For work that needs the archive itself.

    Raises:
        MissingFileError: it lies on a server, and --offline is given.
    """
    if OFFLINE.value and not found.is_local:
        raise errors.MissingFileError(
            f"--offline: {found.where} lies on a server and what is wanted of it is not here; leave the flag out, or "
            "give a copy on this machine with --archive"
        )
