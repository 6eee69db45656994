"""How often and how patiently something on a server is tried again."""

from collections.abc import Callable
import dataclasses
import email.utils
import random
import threading
import time

from zoo import errors
from zoo.remote import addresses

_LONGEST_WAIT_S = 32.0
_NOTICED_WAIT_S = 1.0
# A server that asks for more patience than this is as good as closed.
_LONGEST_RETRY_AFTER_S = 600.0
_TRANSIENT_STATUSES = (408, 416, 425, 429)


@dataclasses.dataclass(frozen=True)
class Options:
    """How objects are read.

    Attributes:
        num_tries: failures in a row, without a new byte between them, after which a read is given up.
        timeout_s: seconds without a byte after which a connection counts as stalled.
        backoff_s: seconds before the second try; the wait doubles with each failure, up to 32 s.
        gcs_token: credentials for gs:// as gcsfs takes them: "anon", "google_default", or a file.
        num_parallel: ranges that are read at the same time by `Source.stream`.
        chunk_bytes: size of these ranges.
        notice: called, by any thread, with a sentence for the user where a try that lasted a second or longer fails, or
            the next one has to wait that long; None to say nothing.

    Raises:
        InvalidValueError: one of the numbers is not positive.
    """

    num_tries: int = 8
    timeout_s: float = 60.0
    backoff_s: float = 1.0
    gcs_token: str = "anon"
    num_parallel: int = 4
    chunk_bytes: int = 8 << 20
    notice: Callable[[str], None] | None = None

    def __post_init__(self) -> None:
        for field in ("num_tries", "timeout_s", "backoff_s", "num_parallel", "chunk_bytes"):
            if not getattr(self, field) > 0:
                raise errors.InvalidValueError(f"{field} is {getattr(self, field)}, expected more than 0")


class TransientError(Exception):
    """One try failed in a way that the next one may not.

    Args:
        reason: a clause that follows "because".
        data: bytes that came before, from the start of what was asked for.
        retry_after_s: the wait that the server asks for.
    """

    def __init__(self, reason: str, data: bytes = b"", retry_after_s: float = 0.0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.data = data
        self.retry_after_s = retry_after_s


class RangesIgnoredError(Exception):
    """The server sends the whole object where a part of it was asked for."""


class StoppedError(Exception):
    """The reader has gone, so nothing more is to be read."""


class Tries:
    """Counts the failures of one read, and waits after each."""

    def __init__(self, url: str, options: Options, stopped: threading.Event) -> None:
        self._url = url
        self._options = options
        self._stopped = stopped
        self._num_failures = 0
        self._began = time.monotonic()

    def failed(self, error: TransientError, *, progressed: bool = False) -> None:
        """Takes note of a failed try, and waits until the next one is due.

        Args:
            error: what went wrong.
            progressed: whether the try brought new bytes; then the count begins anew.

        Raises:
            NetworkError: that was one failure too many.
            StoppedError: the reader has gone meanwhile.
        """
        self._num_failures = 0 if progressed else self._num_failures + 1
        if self._num_failures >= self._options.num_tries:
            often = f"{self._num_failures} times in a row, the last time" if self._num_failures > 1 else "once,"
            raise errors.NetworkError(
                f"{addresses.display(self._url)}: failed {often} because {error.reason}; check the connection and the "
                f"server, then run the same command again: it continues where it stopped"
            ) from error
        wait_s = min(self._options.backoff_s * 2.0 ** (self._num_failures - 1), _LONGEST_WAIT_S)
        # Jitter keeps the ranges that failed together from coming back together.
        wait_s = max(wait_s * random.uniform(0.5, 1.0), error.retry_after_s)
        lasted_s, self._began = time.monotonic() - self._began, time.monotonic() + wait_s
        if self._options.notice is not None and max(wait_s, lasted_s) >= _NOTICED_WAIT_S:
            self._options.notice(
                f"{addresses.name(self._url)}: {error.reason}; trying again in {wait_s:.0f} s "
                f"({self._num_failures + 1} of {self._options.num_tries})"
            )
        if self._stopped.wait(wait_s):
            raise StoppedError


def status_error(url: str, status: int, reason: str = "", retry_after: str | None = None) -> Exception:
    """What an HTTP status other than success means: a `TransientError`, or the error for the user."""
    where, answer = addresses.display(url), f"{status} {reason}".strip()
    if status in (404, 410):
        return errors.MissingFileError(f"{where}: no such object ({answer}); check the address")
    if status in (401, 403):
        return errors.NetworkError(
            f"{where}: access was refused ({answer}), or there is no such object; check the address, or give "
            f"credentials: --gcs_token for gs:// addresses, a signed address for https://"
        )
    if status == 412:
        return changed_error(url, f"the server says {answer}")
    if status in _TRANSIENT_STATUSES or status >= 500:
        return TransientError(f"the server answered {answer}", retry_after_s=_seconds(retry_after))
    return errors.NetworkError(f"{where}: the server answered {answer}, expected the object; check the address")


def changed_error(url: str, what: str) -> errors.MismatchError:
    """The error for an object that is not the one that was opened."""
    return errors.MismatchError(
        f"{addresses.display(url)}: changed on the server while it was read: {what}; what was read before belongs to "
        f"another object, so begin anew with the new one"
    )


def _seconds(retry_after: str | None) -> float:
    """The wait that a Retry-After header asks for, given in seconds or as a date; 0 where it says nothing."""
    if not retry_after:
        return 0.0
    try:
        seconds = float(retry_after)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time()
        except ValueError:
            return 0.0
    return min(max(seconds, 0.0), _LONGEST_RETRY_AFTER_S)
