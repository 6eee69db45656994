"""Turns the text of flags into values, with errors that name the flag."""

import collections
from collections.abc import Collection, Sequence
import json
import os
import pathlib
import re
from typing import Any

from zoo import errors, files, layout

_MOST_RUNS = 10**7


def run_ids(text: str, flag: str = "run_ids", noun: str = "run") -> tuple[int, ...]:
    """Run ids, or other whole numbers, of "0:400", "7" or "0:10,20,30:40"; a range leaves out its end, as in Python.

    Raises:
        InvalidValueError: not of this form, or a number twice.
    """
    ids: list[int] = []
    for part in text.split(","):
        start, colon, stop = part.partition(":")
        if not _is_number(start) or (colon and not _is_number(stop)):
            raise errors.InvalidValueError(f"--{flag}={text}: {part!r} is neither a number nor a range like 0:400")
        wanted = range(int(start), int(stop)) if colon else range(int(start), int(start) + 1)
        if len(ids) + len(wanted) > _MOST_RUNS:
            raise errors.InvalidValueError(f"--{flag}={text}: more than {_MOST_RUNS} {noun}s; name fewer")
        ids.extend(wanted)
    twice = [run_id for run_id, count in collections.Counter(ids).items() if count > 1]
    if twice:
        raise errors.InvalidValueError(f"--{flag}={text}: {noun} {min(twice)} is named twice; name each {noun} once")
    if not ids:
        raise errors.InvalidValueError(f"--{flag}={text}: the range is empty; a range leaves out its end, as in 0:400")
    return tuple(ids)


def _is_number(text: str) -> bool:
    """Whether this is a whole number that can be a run id."""
    return re.fullmatch("[0-9]{1,15}", text.strip()) is not None


def json_object(flag: str, text: str) -> dict[str, Any]:
    """A JSON object from a flag.

    Raises:
        InvalidValueError: not JSON, or not an object.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise errors.InvalidValueError(f'--{flag}={text}: not JSON ({error}); expected like {{"a": 1}}') from error
    if not isinstance(value, dict):
        raise errors.InvalidValueError(f'--{flag}={text}: expected a JSON object like {{"a": 1}}')
    return value


def required(flag: str, value: str | None) -> str:
    """The value of a flag that must be given.

    Raises:
        UsageError: it was not.
    """
    if not value:
        raise errors.UsageError(f"--{flag} is required; see --help")
    return value


def integer_or_auto(flag: str, text: str) -> int | None:
    """A whole number; None for "auto".

    Raises:
        InvalidValueError: it is neither.
    """
    if text == "auto":
        return None
    try:
        return int(text)
    except ValueError as error:
        raise errors.InvalidValueError(f"--{flag}={text}: expected a whole number, or auto") from error


def number_or_auto(flag: str, text: str) -> float | None:
    """A number; None for "auto".

    Raises:
        InvalidValueError: it is neither.
    """
    if text == "auto":
        return None
    try:
        return float(text)
    except ValueError as error:
        raise errors.InvalidValueError(f"--{flag}={text}: expected a number, or auto") from error


def required_list(flag: str, parts: list[str] | None) -> list[str]:
    """The parts of a comma-separated flag that must be given.

    Raises:
        UsageError: it was not.
    """
    if not parts:
        raise errors.UsageError(f"--{flag} is required; see --help")
    return parts


def several_of(flag: str, texts: list[str], known: Collection[str]) -> list[str]:
    """Names of a fixed list, given one by one or with commas between them.

    Args:
        flag: the flag's name, for messages.
        texts: its values.
        known: all names.

    Raises:
        InvalidValueError: a name is not among the known ones.
    """
    names = [name.strip() for text in texts for name in text.split(",")]
    for name in names:
        if name not in known:
            raise errors.InvalidValueError(
                f"--{flag}={','.join(texts)}: {name!r} is none of {', '.join(known)}; give one of them, or several "
                f"with commas between: --{flag}={','.join(known)}"
            )
    return names


def runs_of(flag: str, texts: list[str], there: list[tuple[float, int]], hint: str = "") -> list[tuple[float, int]]:
    """Runs of "0.5/123", "0.5/0:10" (its end left out), "0.5/*" or "all".

    Args:
        flag: the flag's name, for messages.
        texts: its parts.
        there: subset ratio and run id of all runs that there are.
        hint: end of the message about a run that is not there: what tells more of those that are.

    Returns:
        Subset ratio and run id of each, sorted.

    Raises:
        InvalidValueError: a part is not of this form, or names a run that is not there.
    """
    known, found = set(there), set()
    for text in texts:
        chosen = known if text.strip() == "all" else _runs_of_part(flag, text.strip(), known)
        if not chosen:
            raise errors.InvalidValueError(f"--{flag}={text}: there is no such run; there are {_ranges(there)}{hint}")
        found |= chosen
    return sorted(found)


def gaps(flag: str, texts: list[str], there: list[tuple[float, int]]) -> list[str]:
    """What the ranges among the parts of `runs_of` name and is not there, in the same form: "0.5/8:10".

    A range may well reach over gaps; that should only be said.
    """
    known, found = set(there), []
    for text in texts:
        ratio_text, _, ids_text = text.strip().partition("/")
        ratio = layout.parse_ratio(ratio_text)
        if ratio is not None and ":" in ids_text:
            missing = sorted(run_id for run_id in run_ids(ids_text, flag) if (ratio, run_id) not in known)
            found += [f"{layout.ratio_name(ratio)}/{ids}" for ids in id_ranges(missing)]
    return found


def _runs_of_part(flag: str, text: str, known: set[tuple[float, int]]) -> set[tuple[float, int]]:
    ratio_text, slash, ids_text = text.partition("/")
    ratio = layout.parse_ratio(ratio_text)
    if not slash or ratio is None:
        raise errors.InvalidValueError(f"--{flag}={text}: expected runs like 0.5/123, 0.5/0:10, 0.5/* or all")
    if ids_text == "*":
        return {run for run in known if run[0] == ratio}
    if ":" in ids_text:
        return known & {(ratio, run_id) for run_id in run_ids(ids_text, flag)}
    chosen = {(ratio, run_id) for run_id in run_ids(ids_text, flag)}
    return chosen if chosen <= known else set()


def id_ranges(run_ids: Sequence[int]) -> list[str]:
    """Ascending run ids as --runs takes them: 0, 1, 2 and 7 are "0:3" and "7"."""
    bounds: list[list[int]] = []
    for run_id in run_ids:
        if bounds and run_id == bounds[-1][1]:
            bounds[-1][1] += 1
        else:
            bounds.append([run_id, run_id + 1])
    return [str(start) if stop == start + 1 else f"{start}:{stop}" for start, stop in bounds]


def _ranges(runs: list[tuple[float, int]]) -> str:
    """Runs for people: "0.5/0 to 0.5/399 (400 runs)" for each ratio."""
    texts = []
    for ratio in sorted({ratio for ratio, _ in runs}):
        ids = [run_id for of, run_id in runs if of == ratio]
        name = layout.ratio_name(ratio)
        texts.append(f"{name}/{min(ids)} to {name}/{max(ids)} ({files.count_text(len(ids), 'run')})")
    return ", ".join(texts) or "none"


def path(value: str | None) -> str | None:
    """A path from a flag, with ~ standing for the home folder: the shell leaves it alone behind an equals sign."""
    return value if value is None else os.path.expanduser(value)


def required_path(flag: str, value: str | None) -> str:
    """`path` of a flag that must be given."""
    return os.path.expanduser(required(flag, value))


def dataset(value: str | None) -> str | None:
    """A --dataset, with ~ in npz:~/PATH standing for the home folder."""
    if value is None or not value.startswith("npz:"):
        return value
    file_name = value.removeprefix("npz:")
    if not file_name:
        raise errors.UsageError(f"--dataset={value}: expected npz:PATH")
    return f"npz:{os.path.expanduser(file_name)}"


def experiment(zoo: str, name: str | None) -> str:
    """The named experiment of a zoo, or its only one.

    Raises:
        MissingFileError: the zoo or the experiment is not there.
        InvalidValueError: no name, and several experiments.
    """
    there = layout.experiments(zoo)
    folder = pathlib.Path(zoo).resolve()
    if not there and layout.experiments(folder.parent).count(folder.name):
        raise errors.InvalidValueError(
            f"--zoo={zoo} is an experiment, not a zoo; give --zoo={folder.parent} --experiment={folder.name}"
        )
    if name is None and len(there) == 1:
        return there[0]
    if name is None and there:
        raise errors.InvalidValueError(f"{zoo} holds several experiments; name one: --experiment={'|'.join(there)}")
    if name not in there:
        found = ", ".join(there) if there else "none"
        raise errors.MissingFileError(
            f"{zoo}: no experiment{f' {name}' if name else ''}; found: {found}. Check --zoo and --experiment"
        )
    assert name is not None
    return name


def only_cpu(device: str) -> None:
    """For programs whose arithmetic runs on the CPU whatever the flag says.

    Raises:
        InvalidValueError: another device was asked for.
    """
    if device != "cpu":
        raise errors.InvalidValueError(f"--device={device}: this program computes on the CPU; leave the flag out")


def integers(flag: str, parts: list[str]) -> tuple[int, ...]:
    """Whole numbers of a comma-separated flag.

    Raises:
        InvalidValueError: a part is not a whole number.
    """
    try:
        return tuple(int(part) for part in parts)
    except ValueError as error:
        raise errors.InvalidValueError(f"--{flag}={','.join(parts)}: expected whole numbers like 30,60") from error
