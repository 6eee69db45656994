"""A worker process of a build of image records: reads, judges and converts images, and writes shards.

Started by record_building.py as `python -m heldout.datasets.record_worker`, never by hand.
"""

from collections.abc import Callable
import os
import pathlib
from typing import Any, BinaryIO

from heldout.datasets import image_files, record_building, record_format
from heldout.running import workers
from zoo import errors, files

_IMAGES_PER_MESSAGE = 50


class _DamagedShardError(Exception):
    """Keeps a shard from appearing."""


def _start(setup: workers.Message) -> tuple[workers.Perform, workers.Message]:
    known = record_format.format_of(setup["format"])
    shape = setup["image_shape"] and tuple(setup["image_shape"])

    def perform(task: workers.Message, send: Callable[[workers.Message], None]) -> None:
        writer = _ShardWriter(task, known, shape, setup["skip_damaged"], send)
        if setup["output"] is None:
            writer.judge()
        else:
            writer.write(pathlib.Path(setup["output"]))

    return perform, {}


class _ShardWriter:
    """Writes one shard and the note of it."""

    def __init__(
        self,
        task: workers.Message,
        known: record_format.Format,
        shape: tuple[int, int, int] | None,
        skip_damaged: bool,
        send: Callable[[workers.Message], None],
    ) -> None:
        self._task, self._known, self._shape = task, known, shape
        self._skip_damaged, self._send = skip_damaged, send
        self._damaged: list[dict[str, str]] = []
        self._missing: list[int] = []
        self._conversions: dict[str, list[int]] = {}

    def write(self, output: pathlib.Path) -> None:
        """Writes the shard unless an image of it is damaged and may not be left out; reports damaged images."""
        path = output / self._task["name"]
        try:
            with files.write_whole(path) as temporary, open(temporary, "wb") as stream:
                self._write_records(stream)
                if self._damaged and not self._skip_damaged:
                    raise _DamagedShardError
        except _DamagedShardError:
            self._send({"damaged": self._damaged})
            return
        note: dict[str, Any] = {
            "source_sha256": self._task["source_sha256"],
            "size": path.stat().st_size,
            "missing": self._missing,
            "conversions": self._conversions,
        }
        files.write_json(output / record_building.UNFINISHED / f"{path.name}.json", note)

    def judge(self) -> None:
        """Writes nothing; reports damaged images."""
        self._write_records(None)
        self._send({"damaged": self._damaged})

    def _write_records(self, stream: BinaryIO | None) -> None:
        sources = self._task["sources"]
        for number, (name, label, index) in enumerate(sources, start=1):
            record = self._record(name, label, index)
            # Once the shard is lost, the rest is only judged, so that all that is damaged is named at once.
            if stream is not None and record is not None and (self._skip_damaged or not self._damaged):
                stream.write(record_format.framed(record))
            if number % _IMAGES_PER_MESSAGE == 0 or number == len(sources):
                self._send({"num_images": (number - 1) % _IMAGES_PER_MESSAGE + 1})

    def _record(self, name: str, label: int, index: int) -> bytes | None:
        """The record of one image; None where it is damaged."""
        path = os.path.join(self._task["folder"], name)
        content = pathlib.Path(path).read_bytes()
        try:
            prepared = image_files.prepare(path, content, self._known, self._shape)
        except errors.DamagedFileError as error:
            self._damaged.append({"split": self._task["split"], "path": name, "reason": str(error)})
            self._missing.append(index)
            return None
        if prepared.conversion is not None:
            self._conversions.setdefault(prepared.conversion, []).append(index)
        return record_format.encode(self._known, prepared.content, label, index, os.path.basename(path))


if __name__ == "__main__":
    workers.serve(_start)
