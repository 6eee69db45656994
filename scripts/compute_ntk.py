r"""Computes the empirical neural tangent kernel of a network, or projected features, into memory maps with labels.

    python -m scripts.compute_ntk --dataset=digits --classes=3,8 --num_train=60 --num_val=60 --outdir=/tmp/ntk

The kernel is J J^T, J being the derivative of all outputs by all parameters; its rows are example * k + output. The
network is that of an experiment, by the flags of `ground_truth_effects` or by its folder (--experiment=DIR, with
--checkpoint=last for trained weights); a run of a zoo (--run=DIR); or a model of your own
(--model=package.module:callable). --kind is

    full                all pairs of outputs, [n k, m k]
    trace, mean_trace   summed, or averaged, over outputs, [n, m]
    diagonal            squared norm of the gradient of each output, [n, k]
    blocks              each example with itself, [n, k, k]

--rows and --columns say which examples, --row_ids and --column_ids which of them. --projection writes features [n k, D]
instead, whose products are the kernel, with their measured error. Nothing needs to fit into memory but what
--memory_limit_mb allows. It writes, under --outdir,

    kernel/values.npy (features.npy)    the kernel; row_index.npy, row_label.npy and those of columns beside it, and
                                        contents.json, which says what it is of
    ntk.json                            settings, facts, the largest eigenvalue and the rank
    spectrum.png, spectrum.npz          all eigenvalues, of kernels that the memory allows to decompose
    kernel.png                          the kernel, summed over outputs, with examples in the order of their labels

A healthy run ends with lines such as

    mlp on digits: full kernel [60, 60] float32 of 60 training examples, 1 output, 164865 parameters
    largest eigenvalue 1.24e+03, 60 of 60 certainly above rounding
    /tmp/ntk/kernel/values.npy

The same command again does nothing. A killed one goes on behind the last part, of which there are eight at most. Other
settings in the same folder are refused without --overwrite.
"""

from collections.abc import Sequence
import os
from typing import Any

from absl import flags

from scripts import choices, cli, common_flags
from scripts.unique_information import kernel_config, linearisation_dispatch, linearisation_flags
from zoo import files

_SHARED_FLAGS = (*linearisation_flags.NAMES, *linearisation_flags.RUN_NAMES, "data_dir", "device")
_KIND = flags.DEFINE_enum(
    "kind",
    "full",
    list(kernel_config.KINDS),
    "; ".join(f"{name}: {text}" for name, text in kernel_config.KINDS.items()) + ".",
)
_ROWS = flags.DEFINE_enum(
    "rows", "train", list(kernel_config.SIDES), "Examples of the rows; val of --run and --model are test examples."
)
_COLUMNS = flags.DEFINE_enum(
    "columns", None, list(kernel_config.SIDES), "Examples of the columns; without it those of the rows."
)
_ROW_IDS = flags.DEFINE_string(
    "row_ids", None, "Places among the examples of the rows, such as 0:100 or 3,7; without it all."
)
_COLUMN_IDS = flags.DEFINE_string("column_ids", None, "The same of the columns.")
_OUTDIR = flags.DEFINE_string("outdir", None, "Folder of the results.")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace a kernel that was made with other flags.")
_SIDES = {"train": "training", "val": "validation"}
_RESULTS_NAME = "ntk.json"


def run(argv: Sequence[str]) -> int:
    """Flags -> config -> kernel -> files."""
    del argv
    config = kernel_config.KernelConfig(
        outdir=choices.required_path("outdir", _OUTDIR.value),
        source=linearisation_flags.source(),
        kind=_KIND.value,
        rows=_ROWS.value,
        columns=_COLUMNS.value,
        row_places=_places("row_ids", _ROW_IDS.value),
        column_places=_places("column_ids", _COLUMN_IDS.value),
        memory_limit_mb=linearisation_flags.MEMORY_LIMIT_MB.value,
        **linearisation_flags.settings(),
    )
    messages = linearisation_dispatch.kernel(config, common_flags.DEVICE.value, overwrite=_OVERWRITE.value)
    found = linearisation_flags.follow(messages)
    for line in _lines(config, found):
        print(line)
    for name in (found["array"], *found["files"], _RESULTS_NAME):
        print(os.path.join(config.outdir, name))
    return 0


def _places(flag: str, text: str | None) -> tuple[int, ...] | None:
    return None if text is None else choices.run_ids(text, flag, "example")


def _lines(config: kernel_config.KernelConfig, found: dict[str, Any]) -> list[str]:
    """What came out, for people."""
    rows = f"{found['num_rows']} {_SIDES[config.rows]} examples"
    columns = "" if config.is_square else f" by {found['num_columns']} {_SIDES[config.columns or config.rows]} examples"
    what = "features" if config.projection != "none" else f"{config.kind} kernel"
    again = " (was there, nothing to do)" if found["up_to_date"] else ""
    lines = [
        f"{found['network']}: {what} {found['shape']} {found['dtype']} of {rows}{columns}, "
        f"{files.count_text(found['num_outputs'], 'output')}, {found['num_parameters']} parameters{again}"
    ]
    if config.projection != "none":
        lines.append(
            f"the kernel of {found['projection_sample']} examples is off by {found['projection_error']:.2g} of its norm"
        )
    spectrum = found["spectrum"]
    if spectrum is not None:
        most = min(found["shape"])
        lines.append(
            f"largest eigenvalue {spectrum['largest']:.3g}, {spectrum['rank']} of {most} certainly above rounding"
        )
    elif config.is_square and config.kind not in kernel_config.BY_EXAMPLE:
        lines.append(f"no spectrum: it takes more than --memory_limit_mb={config.memory_limit_mb:g}")
    return lines


def main() -> None:
    """Console command."""
    cli.launch(__name__, run, _SHARED_FLAGS)


if __name__ == "__main__":
    main()
