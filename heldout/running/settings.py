"""Settings as nested JSON: how two of them differ, in words."""

from collections.abc import Collection, Mapping
import json
import re
from typing import Any

_LONGEST = 120
_DIGEST = re.compile("[0-9a-f]{64}")


def differences(stored: Any, asked: Mapping[str, Any], ignored: Collection[str] = ()) -> str:
    """One line for each value that two settings do not share; empty where they share all.

    Args:
        stored: what a file has; anything but a mapping has no values.
        asked: what is asked for now.
        ignored: names, with dots where they are nested, that do not count.
    """
    old, new = _flat(stored if isinstance(stored, Mapping) else {}), _flat(asked)
    names = [name for name in {**old, **new} if old.get(name) != new.get(name) and name not in ignored]
    return "\n".join(_difference(name, old.get(name), new.get(name)) for name in names)


def _difference(name: str, stored: Any, asked: Any) -> str:
    if _is_digest(stored) and _is_digest(asked):
        return f"  {name}: other content than what was stored, by its digest"
    return f"  {name}: stored {_short(stored)}, asked for {_short(asked)}"


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and bool(_DIGEST.fullmatch(value))


def _short(value: Any) -> str:
    text = repr(value)
    if not isinstance(value, dict | list | tuple) or len(text) < _LONGEST:
        return text
    return f"{json.dumps(value, default=repr)[: _LONGEST - 20]}..."


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, item in value.items():
        flat |= _flat(item, f"{prefix}{key}.") if isinstance(item, Mapping) else {prefix + key: item}
    return flat
