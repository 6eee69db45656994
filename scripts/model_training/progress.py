"""How far trainings of networks are, on a terminal in a line that stays in its place, elsewhere now and then."""

from collections.abc import Mapping
import shutil
import time
from typing import Any, TextIO

_ERASE_LINE = "\r\033[K"
_LIVE_SECONDS = 0.5
_LOG_SECONDS = 20.0


class Line:
    """A line of progress.

    Args:
        stream: where to write; None for nowhere.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._live = stream is not None and stream.isatty()
        self._shown = float("-inf") if self._live else time.monotonic() - _LOG_SECONDS + _LIVE_SECONDS
        self._is_open = False

    def show(self, text: str) -> None:
        """Shows a text in the place of the last one, unless that came a moment ago."""
        now = time.monotonic()
        if self._stream is None or now - self._shown < (_LIVE_SECONDS if self._live else _LOG_SECONDS):
            return
        self._shown = now
        if self._live:
            width = shutil.get_terminal_size().columns - 1
            print(f"{_ERASE_LINE}{text[:width]}", end="", file=self._stream, flush=True)
            self._is_open = True
        else:
            print(text, file=self._stream, flush=True)

    def note(self, text: str) -> None:
        """Prints a line above."""
        if self._stream is not None:
            self.close()
            print(text, file=self._stream, flush=True)

    def close(self) -> None:
        """Clears the line."""
        if self._is_open:
            print(_ERASE_LINE, end="", file=self._stream, flush=True)
            self._is_open = False


def epoch_text(told: Mapping[str, Any]) -> str:
    """What a worker tells after an epoch, in a line: that of the first network which is not done."""
    networks = told["networks"]
    shown = next((network for network in networks if not network["done"]), networks[-1])
    parts = [f"epoch {told['epoch']} of {told['num_epochs']}"]
    if len(networks) > 1:
        parts.append(f"{sum(not network['done'] for network in networks)} networks, seed {shown['seed']}")
    at = "" if shown["epoch"] == told["epoch"] else f" (epoch {shown['epoch']})"
    return ", ".join([*parts, *_measures(shown)]) + at


def result_text(result: Mapping[str, Any]) -> str:
    """How a network ended, in a line."""
    return ", ".join([f"{result['outcome'].replace('_', ' ')}: {result['reason']}", *_measures(result)])


def _measures(values: Mapping[str, Any]) -> list[str]:
    parts = []
    if values["train_error"] is not None:
        # On clean labels it says something else only where some are changed.
        clean = values["train_clean_error"]
        on_clean = f" ({clean:.4f} on clean labels)" if clean != values["train_error"] else ""
        parts.append(f"train loss {values['train_loss']:.4g} error {values['train_error']:.4f}{on_clean}")
    if values["val_error"] is not None:
        parts.append(f"validation error {values['val_error']:.4f}")
    if values["test_error"] is not None:
        parts.append(f"test error {values['test_error']:.4f}")
    return parts
