"""The process that inflates for a pass, where that is worth one; see `zoo.archive.inflate_process`.

    python -m zoo.archive.inflate_child SOCKET MEMORY

Both arguments are numbers of open files that it inherits. It ends when the other side is gone, for whatever reason.
"""

import contextlib
from multiprocessing import connection
import os
import sys

from zoo.archive import gzip_stream, inflate, inflate_memory


def _serve(pipe: connection.Connection, slots: inflate_memory.Slots) -> None:
    """Inflates the chunks that are announced until the end of the file or damage."""
    state, where = pipe.recv()
    inflater = gzip_stream.GzipInflater(state, where)
    free, waiting = list(range(inflate_memory.NUM_BATCH_SLOTS)), []

    def receive() -> None:
        kind, *values = pipe.recv()
        if kind == "free":
            free.append(values[0])
        else:
            waiting.append((kind, *values))

    def send(batch: gzip_stream.Batch) -> None:
        while not free:
            receive()
        slot = free.pop()
        room, num_before, num_bytes = slots.batch(slot), len(batch.history), len(batch.data)
        room[:num_before] = batch.history
        room[num_before : num_before + num_bytes] = batch.data
        fields = (batch.boundaries, batch.member_position, batch.ending)
        pipe.send(("batch", slot, num_before, num_bytes, batch.position, fields))

    while True:
        while not waiting:
            receive()
        kind, *values = waiting.pop(0)
        try:
            if kind == "finish":
                inflater.finish()
            else:
                slot, num_bytes = values
                for batch in inflater.feed(slots.chunk(slot)[:num_bytes]):
                    send(batch)
        except inflate.InflateError as error:
            pipe.send(("damaged", str(error), error.offset, error.position, inflater.gzip_members))
            return
        pipe.send(("done", inflater.num_output, inflater.gzip_members))
        if kind == "finish":
            return


def main() -> None:
    """Serves the process that started this one."""
    descriptors = [int(text) for text in sys.argv[1:]]
    slots = inflate_memory.Slots(descriptors[1])
    os.close(descriptors[1])
    with connection.Connection(descriptors[0]) as pipe, contextlib.suppress(EOFError, ConnectionError):
        _serve(pipe, slots)


if __name__ == "__main__":
    main()
