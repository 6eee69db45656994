"""Mixes two data sets of the same classes, one of them rare in training: a file for experiments on rare sources.

    python -m scripts.mix_sources --first=digits --second=digits --reverse_second --share=0.1 --output=/tmp/mixed.npz

takes examples of both, so that --share of the training examples are of the second, and half of the test examples; in
the form of the images of the first. --first=mnist --second=svhn_cropped makes grey images of 28 x 28 pixels of both.
With the same name twice they have no example in common, and --reverse_second, which swaps light and dark, makes another
source of it. It writes one npz file, for --dataset=npz:PATH, whose members train__source and test__source say where
each example is from; `compare_groups --by=source` reads them. It prints

    training: 718 of first, 80 of second; test: 179 of first, 179 of second
    written: /tmp/mixed.npz

The same command again writes the same file; a file with other content is replaced with --overwrite only.
"""

from collections.abc import Sequence
import contextlib
import pathlib

from absl import flags

from heldout.datasets import registry, source_mixture
from scripts import choices, cli, common_flags, terminal
from zoo import errors, files

_SHARED_FLAGS = ("data_dir", "device")

_FIRST = flags.DEFINE_string("first", None, "Data set whose form the images have, as --dataset of other programs.")
_SECOND = flags.DEFINE_string("second", None, "Data set of as many classes.")
_SHARE = flags.DEFINE_float("share", 0.1, "Share of the training examples that are of the second.")
_REVERSE_SECOND = flags.DEFINE_bool("reverse_second", False, "Swap light and dark of the second.")
_SEED = flags.DEFINE_integer("seed", 0, "Of the choice of examples and their order.", 0)
_OUTPUT = flags.DEFINE_string("output", None, "File to write; ends in .npz.")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace a file of other content.")
_WORDS = {"train": "training", "test": "test"}


def run(argv: Sequence[str]) -> int:
    """Flags -> two data sets -> one file."""
    del argv
    choices.only_cpu(common_flags.DEVICE.value)
    output = pathlib.Path(choices.required_path("output", _OUTPUT.value))
    if output.suffix != ".npz":
        raise errors.InvalidValueError(f"--output={output}: expected a name that ends in .npz")
    names = {flag.name: choices.required(flag.name, choices.dataset(flag.value)) for flag in (_FIRST, _SECOND)}
    data_dir = choices.path(common_flags.DATA_DIR.value)
    terminal.quiet_tensorflow(names["first"])
    first, second = (registry.load(name, data_dir) for name in names.values())
    mixture = source_mixture.mix(first, second, _SHARE.value, _SEED.value, reversed_second=_REVERSE_SECOND.value)
    print("; ".join(f"{word}: {_count_text(mixture.counts(split))}" for split, word in _WORDS.items()))
    print(f"{_write(output, mixture)}: {output}")
    return 0


def _count_text(counts: dict[str, int]) -> str:
    return ", ".join(f"{number} of {name}" for name, number in counts.items())


def _write(output: pathlib.Path, mixture: source_mixture.Mixture) -> str:
    """Writes the file unless it is there; returns what was done."""
    temporary = files.temporary_beside(output)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        source_mixture.write(temporary, mixture)
        if output.exists() and not _OVERWRITE.value:
            if files.sha256_of_file(output) != files.sha256_of_file(temporary):
                raise errors.InvalidValueError(
                    f"--output={output}: is there with other content; choose another name, or give --overwrite"
                )
            return "was there, nothing to do"
        temporary.replace(output)
        return "written"
    except OSError as error:
        # The temporary file is no name that a user has given. Errors without a number are our own.
        if error.errno is not None:
            error.filename = f"--output={output}"
        raise
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def main() -> None:
    """Console command."""
    cli.launch(__name__, run, _SHARED_FLAGS)


if __name__ == "__main__":
    main()
