"""Chooses where in an archive it shall be possible to begin.

A point costs 100 to 1000 bytes of the index, and a member that is read from the last point before it costs what lies
between. So there is a point at the last deflate block before a member's header, unless the previous point is within
`MERGE` of it, and inside large members one about every `SPACING`.
"""

import bisect
from collections.abc import Callable
import dataclasses
import functools
from typing import Any

from zoo.archive import gzip_stream, seek_points

# Uncompressed bytes.
MERGE = 1 << 16
SPACING = 1 << 23


@dataclasses.dataclass(frozen=True)
class _Candidate:
    """A boundary at which a point can be made, and how to get the output before it."""

    boundary: gzip_stream.Boundary
    window: Callable[[], bytes]


class SeekPlan:
    """Follows a pass over an archive.

    Args:
        add_point: called with number and point as each is finished.
        begin: where the pass goes on, if not at the start of the file.
        state: what `state` returned, to go on.
    """

    def __init__(
        self,
        add_point: Callable[[int, seek_points.Point], None],
        begin: gzip_stream.InflaterState | None = None,
        state: dict[str, Any] | None = None,
    ) -> None:
        self._add_point = add_point
        self._maker = seek_points.PointMaker()
        self._candidates: list[_Candidate] = []
        self._next_id = self._next_ready = 0
        self._last_position = -SPACING
        if begin is not None:
            self.begin_at(begin)
        if state is not None:
            self._maker.restore(state["maker"])
            self._next_id, self._next_ready = state["next_id"], state["next_ready"]
            self._last_position = state["last_position"]

    def begin_at(self, place: gzip_stream.InflaterState) -> None:
        """The next batch follows on this place, which is not where the last one ended."""
        self._candidates = [_Candidate(place.boundary, lambda: place.window)]
        # Nothing leads over what lies between: no earlier point will do.
        self._last_position = -SPACING
        # The boundary may lie inside a byte that no chunk will bring again.
        self._maker.on_chunk(place.boundary.offset - 1, bytes([place.first_byte]))

    def take_chunk(self, offset: int, data: bytes) -> None:
        """Compressed bytes that the next batches come from."""
        self._maker.on_chunk(offset, data)

    def take_batch(self, batch: gzip_stream.Batch) -> None:
        """A batch, before what is in it is looked at."""
        self._candidates += [
            _Candidate(boundary, functools.partial(batch.window, boundary)) for boundary in batch.boundaries
        ]

    def point_before(self, position: int) -> int:
        """Number of a point from which to inflate towards a header; a new one unless the last is close enough.

        Args:
            position: of the header; not before that of an earlier call.
        """
        self.settle(position)
        candidate = self._candidates[0]
        if not self._next_id or candidate.boundary.position - self._last_position >= MERGE:
            self._request(candidate)
        return self._next_id - 1

    def settle(self, position: int) -> None:
        """Everything before a position was looked at: places points in the midst of large members.

        Which points there are depends on the archive alone, not on how it was cut into batches: boundaries are
        considered in order, and none before what may still turn out to lie before it is known. Of those considered
        only the last is kept, for the next header may lead back to it.
        """
        number = bisect.bisect_right(self._candidates, position, key=lambda candidate: candidate.boundary.position)
        for candidate in self._candidates[:number]:
            if candidate.boundary.position - self._last_position >= SPACING:
                self._request(candidate)
        del self._candidates[: max(number - 1, 0)]

    def _request(self, candidate: _Candidate) -> None:
        self._maker.request(candidate.boundary, candidate.window())
        self._last_position = candidate.boundary.position
        self._next_id += 1

    def end_offset(self, position: int, batch: gzip_stream.Batch) -> int | None:
        """Offset of the first boundary of a batch at or behind a position; None if there is none in it."""
        boundaries = batch.boundaries
        place = bisect.bisect_left(boundaries, position, key=lambda boundary: boundary.position)
        return boundaries[place].offset if place < len(boundaries) else None

    def deliver(self) -> None:
        """Hands over the points that are finished."""
        self._deliver(self._maker.take_ready())

    def finish(self) -> None:
        """No more batches follow."""
        self._deliver(self._maker.flush())

    def state(self) -> dict[str, Any]:
        """What the plan continues from; goes through JSON."""
        return {
            "maker": self._maker.pending_state(),
            "next_id": self._next_id,
            "next_ready": self._next_ready,
            "last_position": self._last_position,
        }

    def _deliver(self, points: list[seek_points.Point]) -> None:
        for point in points:
            self._add_point(self._next_ready, point)
            self._next_ready += 1
