"""Progress of long work on the terminal: what is done, rate, time left."""

from collections.abc import Callable, Iterator
import contextlib
import os
import sys

import tqdm

from zoo.archive import scan


def note(text: str) -> None:
    """Prints a line on the error stream without disturbing a bar."""
    tqdm.tqdm.write(text, file=sys.stderr)


def _hides_its_size() -> bool:
    """Whether the terminal says that it has no size, as in a container: then there would be no bar at all."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns == 0
    except (OSError, ValueError):
        return False


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
            live, hidden = sys.stderr.isatty(), _hides_its_size()
            bar = tqdm.tqdm(
                desc=what,
                total=total,
                initial=done,
                unit=unit,
                unit_scale=unit == "B",
                # On a terminal it shows at once that something is going on; a log file is spared what takes no time.
                delay=0 if live else 1,
                mininterval=0.5 if live else 30,
                dynamic_ncols=not hidden,
                ncols=80 if hidden else None,
                nrows=24 if hidden else None,
                leave=False,
            )
        bar.total = total
        bar.update(done - bar.n)

    try:
        yield advance
    finally:
        if bar is not None:
            bar.close()


@contextlib.contextmanager
def stages(name: Callable[[str], str], unit: Callable[[str], str]) -> Iterator[Callable[[str, int, int], None]]:
    """A bar for each stage of some work, one after the other, as a function of the stage, what is done, and all of it.

    Args:
        name: what stands before the bar of a stage.
        unit: what is counted in it, as in `shown`.
    """
    current: str | None = None
    advance: scan.Progress | None = None
    with contextlib.ExitStack() as stack:

        def report(stage: str, done: int, total: int) -> None:
            nonlocal current, advance
            if advance is None or stage != current:
                stack.close()
                current, advance = stage, stack.enter_context(shown(name(stage), unit(stage)))
            advance(done, total)

        yield report
