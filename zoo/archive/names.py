"""Which members of an archive belong to a zoo: an allow-list of paths.

An archive comes from elsewhere, so its paths are never used as paths on this machine. Each is held against what
`zoo.layout` writes; what does not match fully is "other" and is not extracted, and what could lead out of a folder or
confuse a terminal is refused. Where a member goes is then built anew from the experiment, ratio, run id and epoch that
were recognised.
"""

import dataclasses
from typing import Literal
import unicodedata

from zoo import errors, layout

Part = Literal["aux_arrays", "checkpoint_index", "checkpoint_data", "recipe", "run_table", "other"]

MAX_PATH_BYTES = 1024
_CHECKPOINT_PARTS: dict[str, Part] = {
    layout.CHECKPOINT_INDEX_SUFFIX: "checkpoint_index",
    layout.CHECKPOINT_DATA_SUFFIX: "checkpoint_data",
}
_EXPERIMENT_PARTS: dict[str, Part] = {layout.RECIPE_NAME: "recipe", layout.RUN_TABLE_NAME: "run_table"}
# Control characters; invisible ones that turn the direction of text; separators of lines and paragraphs.
_REFUSED_CATEGORIES = frozenset({"Cc", "Cf", "Zl", "Zp"})
_MOST_SHOWN = 200


@dataclasses.dataclass(frozen=True, slots=True)
class MemberName:
    """What the path of a member says.

    Attributes:
        experiment: name of the experiment's folder; "" where the path begins below it, and for other members.
        part: which file of a zoo it is; "other" for all that `zoo.layout` does not write, folders among them.
        subset_ratio: of the run, in (0, 1); None where the file belongs to no run.
        run_id: of the run, 0 or more; None where the file belongs to no run.
        epoch: of the checkpoint, 0 or more; None where it is none.
        relative: the path below the experiment's folder exactly as `zoo.layout` writes it; for other members the
            whole path. Without empty or "." components, so one file has one spelling.
        prefix: the folders before the experiment's, joined by "/"; "" where there are none.
    """

    experiment: str
    part: Part
    subset_ratio: float | None
    run_id: int | None
    epoch: int | None
    relative: str
    prefix: str

    @property
    def folder(self) -> str:
        """Path of the experiment's folder in the archive; "" where the path begins below it."""
        return "/".join(part for part in (self.prefix, self.experiment) if part)


def classify(path: str) -> MemberName:
    """Recognises the path of an archive's member.

    Args:
        path: as the archive has it, with bytes that are not UTF-8 as lone surrogates ("surrogateescape").

    Raises:
        UnsafeArchiveError: the path is empty, absolute, longer than 1024 bytes, not UTF-8, or holds "..", a backslash
            or control characters.
    """
    _check(path)
    parts = [part for part in path.split("/") if part not in ("", ".")]
    found = _run_file(parts) or _experiment_file(parts)
    return found or MemberName("", "other", None, None, None, "/".join(parts), "")


def printable(text: str) -> str:
    """A text from elsewhere as a terminal can show it: with control characters escaped."""
    return text if text.isprintable() else ascii(text)[1:-1]


def _check(path: str) -> None:
    """Refuses what no archive of a zoo holds.

    Raises:
        UnsafeArchiveError: see `classify`.
    """
    problem = _problem(path)
    if problem:
        shown = ascii(path[:_MOST_SHOWN]) + ("..." if len(path) > _MOST_SHOWN else "")
        raise errors.UnsafeArchiveError(
            f"member {shown}: {problem}; archives of zoos hold <experiment>/<subset_ratio>/<run_id>/... only. "
            "Do not use this archive unless you trust who made it, and unpack what you need by hand."
        )


def _problem(path: str) -> str | None:
    """Why a path is refused, or None."""
    if not path:
        return "its path is empty"
    if path.startswith("/"):
        return "its path is absolute"
    if "\\" in path:
        return "its path holds a backslash"
    if ".." in path and ".." in path.split("/"):
        return 'its path holds ".."'
    try:
        num_bytes = len(path.encode("utf-8"))
    except UnicodeEncodeError:
        return "its path is not UTF-8"
    if num_bytes > MAX_PATH_BYTES:
        return f"its path has {num_bytes} bytes, expected {MAX_PATH_BYTES} at most"
    # Nearly every path is plain ASCII; only the others are looked at character by character.
    plain = path.isascii() and path.isprintable()
    if not plain and any(unicodedata.category(sign) in _REFUSED_CATEGORIES for sign in path):
        return "its path holds control characters"
    return None


def _run_file(parts: list[str]) -> MemberName | None:
    """A file of a run: [...prefix, experiment, ratio, run id, aux_arrays.npz], or with checkpoints, ckpt-... ."""
    if not parts:
        return None
    part: Part
    epoch = None
    if parts[-1] == layout.AUX_ARRAYS_NAME:
        folders, part = parts[:-1], "aux_arrays"
    else:
        checkpoint = layout.parse_checkpoint_file(parts[-1])
        if checkpoint is None or parts[-2:-1] != [layout.CHECKPOINTS_NAME]:
            return None
        epoch, suffix = checkpoint
        folders, part = parts[:-2], _CHECKPOINT_PARTS[suffix]
    if len(folders) < 2:
        return None
    ratio, run_id = layout.parse_ratio(folders[-2]), layout.parse_run_id(folders[-1])
    above = folders[:-2]
    if ratio is None or run_id is None or not _may_be_experiment(above):
        return None
    relative = "/".join(parts[len(above) :])
    return MemberName("".join(above[-1:]), part, ratio, run_id, epoch, relative, "/".join(above[:-1]))


def _experiment_file(parts: list[str]) -> MemberName | None:
    """A file of the whole experiment: [...prefix, experiment, recipe.json or run_table.npz]."""
    part = _EXPERIMENT_PARTS.get(parts[-1]) if parts else None
    above = parts[:-1]
    # Below a ratio's folder such a file is a stray one of a run.
    if part is None or not _may_be_experiment(above) or any(layout.parse_ratio(name) is not None for name in above):
        return None
    return MemberName("".join(above[-1:]), part, None, None, None, parts[-1], "/".join(above[:-1]))


def _may_be_experiment(above: list[str]) -> bool:
    """Whether the last of these folders can be an experiment's; no folder at all leaves its name open."""
    try:
        if above:
            layout.check_experiment_name(above[-1])
    except errors.InvalidValueError:
        return False
    return True
