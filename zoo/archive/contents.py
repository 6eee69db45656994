"""Looks into the members of an archive while they stream by, and judges them by their own checksums.

A record (aux_arrays.npz) is read and validated as a whole, and gives a row of the run table. A checkpoint is two
files: the index knows the CRC32C of every variable in the data file, so as soon as both have passed, wherever they
lie, the data is proved. What has no checksum of its own, or was too large to be held, stays "unchecked".

Memory: the member that is passing, if it is to be looked into, and the halves of checkpoints that wait for the other,
`MAX_WAITING` bytes in all; beyond that the half that has waited longest is given up.
"""

from collections.abc import Callable
import dataclasses
import json
import pathlib
from typing import Any

from zoo import checkpoint_bundle, errors, files, layout, npz, run_scan, sorted_table
from zoo.archive import index, names, zlib_library

# What is looked into, by part, in bytes; a record's arrays may take as much again. ImageNet's records take 22 MB, its
# checkpoints some 100 MB.
LARGEST = {
    "aux_arrays": 1 << 28,
    "checkpoint_index": 1 << 26,
    "checkpoint_data": 1 << 28,
    "recipe": 1 << 20,
}
MAX_WAITING = 1 << 28

# Large contents are not copied once more only to be constant.
Content = bytes | bytearray
_Key = tuple[float, int, int]


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What is known of a member once something has been found out about it."""

    member_id: int
    state: index.State
    reason: str


@dataclasses.dataclass
class _Half:
    """One file of a checkpoint that waits for the other."""

    member_id: int
    part: str
    content: Content


class Contents:
    """Takes the bytes of one member after the other.

    Args:
        add_row: called with the row of each sound record.
        keep: called with name and content of each sound file of the experiment as a whole (its recipe).
    """

    def __init__(
        self,
        add_row: Callable[[run_scan.RunRow], None],
        keep: Callable[[names.MemberName, bytes], None],
    ) -> None:
        self._add_row, self._keep = add_row, keep
        self._experiment = ""
        self._name: names.MemberName | None = None
        self._member_id = -1
        self._crc32 = 0
        self._content: bytearray | None = None
        self._waiting: dict[_Key, _Half] = {}
        self._num_waiting = 0  # bytes
        self._verdicts: list[Verdict] = []

    @property
    def num_held(self) -> int:
        """Bytes held at the moment."""
        current = 0 if self._content is None else len(self._content)
        return current + self._num_waiting

    def begin(self, member_id: int, name: names.MemberName, size: int, experiment: str) -> None:
        """A member begins; its bytes follow. Messages name the experiment."""
        self._experiment = experiment
        largest = LARGEST.get(name.part, 0)
        self._member_id, self._name, self._crc32 = member_id, name, 0
        self._content = bytearray() if size <= largest else None

    def add(self, data: memoryview) -> None:
        """The next bytes of the member."""
        self._crc32 = zlib_library.crc32(data, self._crc32)
        if self._content is not None:
            self._content += data

    def end(self) -> tuple[int, index.State, str]:
        """The member is complete.

        Returns:
            The CRC32 of its bytes, and what is known of it so far; more may follow from `take_verdicts`.
        """
        name, content = self._name, self._content
        assert name is not None
        self._name, self._content = None, None
        state, reason = self._judge(name, content)
        return self._crc32, state, reason

    def abandon(self) -> None:
        """The rest of the member will not come."""
        self._name, self._content = None, None

    def take_verdicts(self) -> list[Verdict]:
        """What has been found out about earlier members since the last call."""
        verdicts, self._verdicts = self._verdicts, []
        return verdicts

    def _judge(self, name: names.MemberName, content: bytearray | None) -> tuple[index.State, str]:
        if content is None:
            if name.part in ("aux_arrays", "recipe"):
                return "refused", f"{name.relative}: larger than {files.size_text(LARGEST[name.part])}"
            return "unchecked", ""
        row = None
        try:
            if name.part == "aux_arrays":
                row = self._row(name, bytes(content))
            elif name.part == "recipe":
                _check_json_object(name.relative, content)
        except errors.DamagedFileError as error:
            return "damaged", _damage(error)
        # Outside: a journal that cannot be written is no damage of the member.
        if row is not None:
            self._add_row(row)
            return "sound", ""
        if name.part == "recipe":
            self._keep(name, bytes(content))
        if name.part in ("checkpoint_index", "checkpoint_data"):
            return self._judge_checkpoint(name, content)
        return "unchecked", ""

    def _row(self, name: names.MemberName, content: bytes) -> run_scan.RunRow:
        assert name.subset_ratio is not None
        assert name.run_id is not None
        run = layout.Run(pathlib.Path(), self._experiment, name.subset_ratio, name.run_id)
        return run_scan.row_from_record(run, content, max_bytes=LARGEST["aux_arrays"])

    def _judge_checkpoint(self, name: names.MemberName, content: bytearray) -> tuple[index.State, str]:
        """Holds data against index if both are there; the earlier of the two is judged through `take_verdicts`."""
        assert name.subset_ratio is not None
        assert name.run_id is not None
        assert name.epoch is not None
        key = name.subset_ratio, name.run_id, name.epoch
        other = self._waiting.get(key)
        if other is None or other.part == name.part:
            self._wait(key, _Half(self._member_id, name.part, content))
            return "unchecked", ""
        self._give_up(key)
        by_part = {other.part: other.content, name.part: content}
        states = _judge_pair(by_part["checkpoint_index"], by_part["checkpoint_data"], name.relative)
        self._verdicts.append(Verdict(other.member_id, *states[other.part]))
        return states[name.part]

    def _wait(self, key: _Key, half: _Half) -> None:
        if key in self._waiting:
            self._give_up(key)
        self._waiting[key] = half
        self._num_waiting += len(half.content)
        while self._num_waiting > MAX_WAITING:
            self._give_up(next(iter(self._waiting)))

    def _give_up(self, key: _Key) -> None:
        self._num_waiting -= len(self._waiting.pop(key).content)

    def state(self) -> tuple[dict[str, Any], dict[str, Content]]:
        """What `restore` continues from: values that go through JSON, and bytes by name."""
        blobs: dict[str, Content] = {f"waiting {half.member_id}": half.content for half in self._waiting.values()}
        if self._content is not None:
            blobs["passing"] = self._content
        waiting = [[*key, half.member_id, half.part] for key, half in self._waiting.items()]
        name = None if self._name is None else dataclasses.asdict(self._name)
        current = {"member_id": self._member_id, "name": name, "crc32": self._crc32, "experiment": self._experiment}
        return {"current": current, "waiting": waiting}, blobs

    def restore(self, state: dict[str, Any], blobs: dict[str, bytes]) -> None:
        """Continues from what `state` returned."""
        current = state["current"]
        self._member_id, self._crc32 = current["member_id"], current["crc32"]
        self._experiment = current["experiment"]
        self._name = None if current["name"] is None else names.MemberName(**current["name"])
        self._content = bytearray(blobs["passing"]) if "passing" in blobs else None
        for *key, member_id, part in state["waiting"]:
            ratio, run_id, epoch = key
            self._wait((ratio, run_id, epoch), _Half(member_id, part, blobs[f"waiting {member_id}"]))


def _judge_pair(index_content: Content, data: Content, where: str) -> dict[str, tuple[index.State, str]]:
    """What the two files of a checkpoint are worth, by part."""
    where = where.removesuffix(layout.CHECKPOINT_INDEX_SUFFIX).removesuffix(layout.CHECKPOINT_DATA_SUFFIX)
    try:
        bundle = checkpoint_bundle.read_index(bytes(index_content), where)
    except errors.DamagedFileError as error:
        return {"checkpoint_index": ("damaged", _damage(error)), "checkpoint_data": ("unchecked", "")}
    try:
        checkpoint_bundle.verify(bundle, memoryview(data), where)
    except errors.DamagedFileError as error:
        return {"checkpoint_index": ("sound", ""), "checkpoint_data": ("damaged", _damage(error))}
    return {"checkpoint_index": ("sound", ""), "checkpoint_data": ("sound", "")}


def _damage(error: errors.DamagedFileError) -> str:
    """The message without the repair, which is for files, and none for members of an archive."""
    return str(error).removesuffix(f"; {sorted_table.REPAIR}").removesuffix(f". {npz.REPAIR}")


def _check_json_object(where: str, content: bytearray) -> None:
    """Refuses a recipe that none can read.

    Raises:
        DamagedFileError: it is no JSON object.
    """
    try:
        is_object = isinstance(json.loads(content.decode("utf-8")), dict)
    except (ValueError, RecursionError):
        is_object = False
    if not is_object:
        raise errors.DamagedFileError(f"{where}: not a JSON object")
