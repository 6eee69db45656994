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
    "dest", os.environ.get("HELDOUT_ZOO") or None, "Folder of the zoo that the results go to. Without it $HELDOUT_ZOO."
)
PARALLEL = flags.DEFINE_integer("parallel", 4, "Ranges that are read from a server at the same time.", 1, 64)
TIMEOUT = flags.DEFINE_float("timeout_s", 60.0, "Seconds without a byte after which a connection counts as stalled.")
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
    """

    url: str
    name: str
    experiment: str | None
    md5: str | None
    size: int | None

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
        UsageError: neither --archive nor --experiment is given.
        InvalidValueError: no such experiment is known.
    """
    url, experiment = choices.path(ARCHIVE.value), common_flags.EXPERIMENT.value
    if not url and experiment is None:
        known = ", ".join(sorted(registry.PUBLISHED))
        raise errors.UsageError(f"give --experiment (one of {known}, or of --registry) or --archive; see --help")
    if experiment is None:
        assert url is not None
        return Archive(url, source.name(url), None, None, None)
    layout.check_experiment_name(experiment)
    registry_url = choices.path(REGISTRY.value)
    if OFFLINE.value and registry_url and addresses.local_path(registry_url) is None:
        if not url:
            # What is here may be enough; the registry would have to be asked of a server.
            return Archive(registry_url, f"{experiment}.tar.gz", experiment, None, None)
        registry_url = None
    if url:
        known_as = registry.known(registry_url, options()).get(experiment)
        if known_as is None:
            return Archive(url, source.name(url), experiment, None, None)
    else:
        known_as = registry.find(experiment, registry_url, options())
        url = known_as.url
    return Archive(url, source.name(url), experiment, known_as.md5, known_as.size)


def refuse_offline(found: Archive) -> None:
    """For work that needs the archive itself.

    Raises:
        InvalidValueError: it lies on a server, and --offline is given.
    """
    if OFFLINE.value and not found.is_local:
        raise errors.InvalidValueError(
            f"--offline: {found.where} lies on a server and what is wanted of it is not here; leave the flag out, or "
            "give a copy on this machine with --archive"
        )
