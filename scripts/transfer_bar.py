"""Progress of long transfers on the terminal: bytes, rate, time left."""

from collections.abc import Iterator
import contextlib
import sys

import tqdm

from zoo.archive import scan


def note(text: str) -> None:
    """Prints a line on the error stream without disturbing a bar."""
    tqdm.tqdm.write(text, file=sys.stderr)


@contextlib.contextmanager
def shown(what: str, unit: str = "B") -> Iterator[scan.Progress]:
    """A bar that is as long as its work, as a function of what is done and what is to do.

    What was done before the first call does not count towards the rate. A live bar on a terminal; now and then a line
    in a log file.
    """
    bar: tqdm.tqdm | None = None

    def advance(done: int, total: int) -> None:
        nonlocal bar
        if bar is None:
            live = sys.stderr.isatty()
            bar = tqdm.tqdm(
                desc=what,
                total=total,
                initial=done,
                unit=unit,
                unit_scale=True,
                # On a terminal it shows at once that something is going on; a log file is spared what takes no time.
                delay=0 if live else 1,
                mininterval=0.5 if live else 30,
                dynamic_ncols=True,
                leave=False,
            )
        bar.total = total
        bar.update(done - bar.n)

    try:
        yield advance
    finally:
        if bar is not None:
            bar.close()
