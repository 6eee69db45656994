"""The files that packing an experiment makes, and the manifest among them.

    <output>/<experiment>.tar.gz                all sound runs; `pack_plan` says in which order, `pack_stream` how
    <output>/<experiment>.tar.gz.md5            as md5sum writes and reads it
    <output>/<experiment>.run_table.npz         the statistics of the packed runs; see `zoo.run_table`
    <output>/<experiment>.tar.gz.index.sqlite   where everything lies in the archive; see `zoo.archive.index`
    <output>/<experiment>.json                  the manifest

The manifest is a registry of one entry (`zoo.registry`), with counts and the digests of the other files beside it.
"""

import dataclasses
import pathlib
from typing import Any

from zoo import files, layout, registry
from zoo.archive import pack_plan, pack_stream


@dataclasses.dataclass(frozen=True)
class Places:
    """The files of a packed experiment, and the hidden ones of the work on it."""

    output: pathlib.Path
    experiment: str

    def _named(self, form: str) -> pathlib.Path:
        return self.output / form.format(self.experiment)

    @property
    def archive(self) -> pathlib.Path:
        """The tar.gz."""
        return self._named("{}.tar.gz")

    @property
    def md5(self) -> pathlib.Path:
        """Its MD5, for md5sum -c."""
        return self._named("{}.tar.gz.md5")

    @property
    def run_table(self) -> pathlib.Path:
        """The packed runs, one bit an example."""
        return self._named(f"{{}}{registry.RUN_TABLE_END}")

    @property
    def index(self) -> pathlib.Path:
        """The seek index."""
        return self._named(f"{{}}{registry.INDEX_END}")

    @property
    def manifest(self) -> pathlib.Path:
        """What is published here."""
        return self._named("{}.json")

    @property
    def published(self) -> tuple[pathlib.Path, ...]:
        """All of these; the manifest, without which the others are unfinished, first."""
        return self.manifest, self.index, self.run_table, self.md5, self.archive

    @property
    def unfinished(self) -> pathlib.Path:
        """The archive while it is written."""
        return self._named(".{}.tar.gz.packing")

    @property
    def journal(self) -> pathlib.Path:
        """How far it is written."""
        return self._named(".{}.tar.gz.packing.json")

    @property
    def sound_records(self) -> pathlib.Path:
        """Records that were found sound, and"""
        return self._named(".{}.sound_records.npz")

    @property
    def sound_checkpoints(self) -> pathlib.Path:
        """checkpoints, so that they need not be read again; see `pack_checks`."""
        return self._named(".{}.sound_checkpoints.json")

    @property
    def finished(self) -> pathlib.Path:
        """What the finished archive was packed from."""
        return self._named(".{}.tar.gz.packed.json")

    @property
    def lock(self) -> pathlib.Path:
        """Held while packing."""
        return self._named(".{}.tar.gz.lock")


def manifest(plan: pack_plan.Plan, places: Places, written: pack_stream.Written, url: str | None) -> dict[str, Any]:
    """The registry entry of the archive, with counts and the digests of the files beside it.

    Args:
        plan: what was packed.
        places: where; the run table and the index are there.
        written: size and digests of the archive.
        url: where the archive will be published, a folder if it ends with "/"; None for beside the manifest.
    """
    if url is None or url.endswith("/"):
        url = (url or "") + places.archive.name
    beside = [path for path in (places.run_table, places.index) if path.exists()]
    ratios = {layout.ratio_name(ratio): plan.table.select(ratio).num_runs for ratio in plan.table.subset_ratios}
    return {
        "schema_version": registry.SCHEMA_VERSION,
        "experiments": [
            {
                "name": plan.experiment,
                "url": url,
                "md5": written.md5,
                "size": written.size,
                "crc32c": written.crc32c,
                **_trained(plan),
            }
        ],
        "num_train": plan.table.num_train,
        "num_test": plan.table.num_test,
        "num_runs": ratios,
        "num_with_checkpoint": plan.num_with_checkpoint,
        "num_bytes": plan.num_bytes,
        "files": {path.name: {"size": path.stat().st_size, "sha256": files.sha256_of_file(path)} for path in beside},
    }


def _trained(plan: pack_plan.Plan) -> dict[str, Any]:
    """What was trained on what, by recipe.json, else by the list of published zoos; None where neither tells."""
    if plan.recipe is not None:
        stored = plan.recipe.get("dataset")
        dataset = stored if isinstance(stored, dict) else {}
        architecture, name, num_classes = (
            plan.recipe.get("architecture"),
            dataset.get("name"),
            dataset.get("num_classes"),
        )
        return {
            "architecture": architecture if isinstance(architecture, str) else None,
            "dataset": name if isinstance(name, str) else None,
            "num_classes": num_classes if isinstance(num_classes, int) else None,
        }
    known = registry.PUBLISHED.get(plan.experiment)
    return {field: getattr(known, field, None) for field in ("architecture", "dataset", "num_classes")}
