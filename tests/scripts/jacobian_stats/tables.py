"""Tables that no network stands behind; no TensorFlow."""

import pathlib

import numpy as np

from scripts.jacobian_stats import stats_config, stats_files


def table(**members):
    """What a table is of; members in the place of the usual ones."""
    facts = {
        "kind": "train_model",
        "model": "conv5_4",
        "dataset": "digits",
        "width": 4,
        "learning_rate": 0.1,
        "epochs": 5,
        "label_noise": {"kind": "symmetric", "share": 0.1, "seed": 3},
        "augmentation": [],
        "seeds": {"seed": 0},
        "settings": {"model": "conv5_4", "seed": 0, "label_noise": {"share": 0.1, "seed": 3}},
    }
    column = stats_files.Column("jacobian", "none", "example", "", False, "logits per input unit", ("jacobian",))
    usual = {
        "split": "train",
        "epoch": 5,
        "step": 20,
        "weights": "w",
        "shard": (1, 1),
        "skip": 0,
        "num_examples": None,
        "num_rows": 10,
        "num_split": 10,
        "identity": "i",
        "columns": (column,),
        "source": facts | members.pop("facts", {}),
        "group": ("conv5_4", "digits", "noise"),
        "seed": "0",
        "home": None,
        "config": stats_config.StatsConfig(metrics=("jacobian",)).identity(),
    }
    return stats_files.Table(**(usual | members))


def arrays(values, ids=None, label=None, clean_label=None, epoch=5):
    """Columns of a table."""
    num = len(values)
    ids = np.arange(num) if ids is None else np.asarray(ids)
    label = ids % 3 if label is None else np.asarray(label)
    return {
        "id": ids,
        "label": label,
        "clean_label": label if clean_label is None else np.asarray(clean_label),
        "epoch": np.full(num, epoch),
        "jacobian": np.asarray(values, np.float64),
    }


def write(folder, what, columns):
    """Writes a table; returns where."""
    pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
    path = stats_files.table_path(pathlib.Path(folder), what)
    stats_files.write_table(path, what, columns)
    return path


def write_shards(folder, num, total=10, **members):
    """Shards 1/num to num/num of values 0, 1, ..., whose ids are 100 more."""
    paths = []
    for i in range(1, num + 1):
        values = np.arange(total)[i - 1 :: num]
        what = table(shard=(i, num), num_rows=len(values), num_split=total, **members)
        paths.append(write(folder, what, arrays(values, values + 100)))
    return paths
