"""Checkpoints as `zoo.checkpoints.write` makes them, written without TensorFlow, which takes seconds to load."""

import pathlib

import numpy as np

from tests.zoo import tables
from zoo import layout

_VALUE = "VARIABLE_VALUE"
_DTYPES = {"float32": 1, "int64": 9}
_TEXT = 7
_MAGIC = (0xDB4775248B80FB57).to_bytes(8, "little")
# Of the objects: the root, its counters, the model, its only layer, and the variables of that.
_KEYS = {1: "epoch", 2: "global_step", 5: "model/layer/w", 6: "model/layer/b"}
_CHILDREN = {0: {1: "epoch", 2: "global_step", 3: "model"}, 3: {4: "layer"}, 4: {5: "w", 6: "b"}}


def write(prefix: pathlib.Path, w: np.ndarray, b: np.ndarray, *, epoch: int, global_step: int) -> None:
    """Writes the checkpoint of a model with a single layer of weights and biases.

    Args:
        prefix: what the file names begin with; the folder is created where missing.
        w: float32 weights of any shape.
        b: float32 biases of any shape.
        epoch: epochs done.
        global_step: optimizer steps done.
    """
    arrays = {"epoch": np.array(epoch, np.int64), "global_step": np.array(global_step, np.int64)}
    arrays |= {"model/layer/w": w, "model/layer/b": b}
    entries, content = {}, b""
    for key, array in arrays.items():
        data = array.astype(array.dtype.newbyteorder("<")).tobytes()
        number = _DTYPES[array.dtype.name]
        entries[_entry_name(key)] = tables.bundle_entry(number, array.shape, len(data), len(content), data=data)
        content += data
    graph, checked = _text(_object_graph())
    entries["_CHECKPOINTABLE_OBJECT_GRAPH"] = tables.bundle_entry(_TEXT, (), len(graph), len(content), data=checked)
    prefix.parent.mkdir(parents=True, exist_ok=True)
    prefix.with_name(prefix.name + layout.CHECKPOINT_DATA_SUFFIX).write_bytes(content + graph)
    prefix.with_name(prefix.name + layout.CHECKPOINT_INDEX_SUFFIX).write_bytes(_index(entries))


def _entry_name(key: str) -> str:
    return f"{key}/.ATTRIBUTES/{_VALUE}"


def _index(entries: dict[str, bytes]) -> bytes:
    """A table whose block has the key by which TensorFlow seeks it, which our reader does without."""
    names = sorted(entries)
    rows = [(b"", tables.HEADER), *((name.encode(), entries[name]) for name in names)]
    data = tables.block(b"".join(tables.entry(*row) for row in rows))
    none = tables.block(b"")
    last = tables.block(tables.entry(names[-1].encode(), tables.handle(0, len(data))))
    content = tables.trailed(data)
    places = tables.handle(len(content), len(none))
    content += tables.trailed(none)
    places += tables.handle(len(content), len(last))
    return content + tables.trailed(last) + places.ljust(40, b"\0") + _MAGIC


def _text(text: bytes) -> tuple[bytes, bytes]:
    """A text as it is stored, and the bytes that its checksum is of."""
    length = len(text).to_bytes(4, "little")
    return tables.varint(len(text)) + tables.masked(length) + text, length + tables.masked(length) + text


def _object_graph() -> bytes:
    """A protocol buffer TrackableObjectGraph: which attribute leads from which object to which, and to which entry."""
    return b"".join(tables.field(1, _object(number)) for number in range(7))


def _object(number: int) -> bytes:
    children = _CHILDREN.get(number, {}).items()
    content = b"".join(
        tables.field(1, tables.field(1, child) + tables.field(2, name.encode())) for child, name in children
    )
    if number in _KEYS:
        words = (_VALUE, "Variable", _entry_name(_KEYS[number]))
        content += tables.field(2, b"".join(tables.field(i, word.encode()) for i, word in enumerate(words, 1)))
    return content
