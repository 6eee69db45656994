"""Hypothesis strategies that damage files, for tests that readers never trust bytes."""

from hypothesis import strategies as st


@st.composite
def corrupted(draw: st.DrawFn, data: bytes) -> bytes:
    """The bytes with a few flipped, cut off, doubled or overwritten; now and then left as they are."""
    damaged = bytearray(data)
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, max(len(damaged) - 1, 0)))
        kind = draw(st.sampled_from(["flip", "flip", "flip", "truncate", "insert", "delete", "overwrite"]))
        if kind == "flip" and damaged:
            damaged[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "truncate":
            del damaged[at:]
        elif kind == "insert":
            damaged[at:at] = draw(st.binary(min_size=1, max_size=8))
        elif kind == "delete":
            del damaged[at : at + draw(st.integers(1, 8))]
        else:
            new = draw(st.binary(min_size=1, max_size=8))
            damaged[at : at + len(new)] = new
    return bytes(damaged)
