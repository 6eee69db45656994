"""Which training examples networks are trained without: the value of --which.

all              each of the n examples that were drawn, alone
0:60  or  3,7    some of them by their place among those drawn, from 0; a range leaves out its end
random:60        60 of them, by the seed
stratified:60    one of each of 60 equal parts of them in the order of a score, by the seed
PATH             a text file with a group a line, of positions in the training split with commas or spaces between them;
                 or an npz file whose train_index are the positions of single examples
"""

import pathlib
import re

import numpy as np

from heldout import subsets
from scripts import choices
from zoo import errors, npz

Group = tuple[int, ...]
_DRAWN = re.compile(r"(random|stratified):([1-9][0-9]{0,8})")


def parse(which: str, train_index: np.ndarray, seed: int, score: np.ndarray | None = None) -> tuple[Group, ...]:
    """The groups, each an ascending tuple of positions in the training split.

    Args:
        which: see the module.
        train_index: int64 [n], ascending positions of the examples that were drawn.
        seed: of random choices.
        score: float64 [n] of these examples, for "stratified".

    Raises:
        InvalidValueError: it is none of these, or names examples that were not drawn, or a group twice.
        MissingFileError, DamagedFileError: of a file.
    """
    drawn = _DRAWN.fullmatch(which)
    if which == "all":
        places = np.arange(len(train_index))
    elif drawn:
        places = _drawn(which, drawn[1], int(drawn[2]), len(train_index), seed, score)
    elif re.fullmatch("[0-9:, ]+", which):
        places = np.array(choices.run_ids(which, "which", "example"))
        if places.max() >= len(train_index):
            raise errors.InvalidValueError(
                f"--which={which}: expected places among the {len(train_index)} examples that were drawn, from 0 to "
                f"{len(train_index) - 1}; positions in the training split are given in a file"
            )
    else:
        return _of_file(which, train_index)
    return tuple((int(train_index[place]),) for place in places)


def _drawn(which: str, kind: str, number: int, num_train: int, seed: int, score: np.ndarray | None) -> np.ndarray:
    """Places, ascending."""
    if number > num_train:
        raise errors.InvalidValueError(f"--which={which}: expected at most {num_train}, which is how many were drawn")
    key = subsets.seed(("ground_truth_effects", 0.5, seed), kind)
    if kind == "random":
        return np.sort(subsets.permutation(key, num_train)[:number])
    if score is None or np.isnan(score).any():
        missing = "none is given" if score is None else f"{np.isnan(score).sum()} examples have none"
        raise errors.InvalidValueError(
            f"--which={which}: needs a score of each of the {num_train} examples that were drawn, but {missing}; give "
            "--scores, and --column where the file has several"
        )
    strata = np.array_split(np.argsort(score, kind="stable"), number)
    words = subsets.random_words(key, number)
    return np.sort([part[int(word % np.uint64(len(part)))] for part, word in zip(strata, words, strict=True)])


def _of_file(which: str, train_index: np.ndarray) -> tuple[Group, ...]:
    path = pathlib.Path(which).expanduser()
    if not path.is_file():
        raise errors.MissingFileError(
            f"--which={which}: no such file; expected all, places such as 0:60, random:60, stratified:60, or a file"
        )
    if path.suffix == ".npz":
        index = npz.read(path, ["train_index"])["train_index"]
        if index.dtype.kind not in "iu" or index.ndim != 1:
            raise errors.InvalidValueError(f"{path}: train_index is {index.dtype} {index.shape}, expected positions")
        lines = [str(one) for one in index]
    else:
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError as error:
            raise errors.DamagedFileError(f"{path}: not a text file ({error}); expected a group a line") from error
    groups = [_group(path, line) for line in lines if line.strip()]
    strangers = sorted({one for group in groups for one in group} - set(train_index.tolist()))
    if not groups or strangers or len(set(groups)) < len(groups):
        raise errors.InvalidValueError(
            f"{path}: has {len(groups)} groups, {len(set(groups))} of them different, with {len(strangers)} positions "
            f"that were not drawn{f', such as {strangers[0]}' if strangers else ''}; expected at least one group, each "
            "once, of training examples that were drawn"
        )
    return tuple(groups)


def _group(path: pathlib.Path, line: str) -> Group:
    words = re.split(r"[,\s]+", line.strip())
    if not all(re.fullmatch("[0-9]{1,15}", word) for word in words) or len(set(words)) < len(words):
        raise errors.InvalidValueError(
            f"{path}: {line!r} is no group; expected positions in the training split, each once, such as 17, 203"
        )
    return tuple(sorted(map(int, words)))
