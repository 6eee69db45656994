"""The picture of a sweep: test and training error against width, for each amount of label noise."""

from collections.abc import Mapping, Sequence
from typing import Any

from scripts.model_training import sweep_table
from zoo import files


def draw(path: files.PathLike, table: Sequence[Mapping[str, Any]], title: str) -> bool:
    """Draws a panel for each model: means over seeds, bands from the lowest to the highest seed.

    Args:
        path: a PNG file.
        table: as `sweep_table.rows` gives it.
        title: of the whole.

    Returns:
        Whether there was anything to draw: networks with a width that ended well.
    """
    import matplotlib  # a second, after hours of training

    matplotlib.use("Agg")
    from matplotlib import pyplot, ticker  # see above

    test, train = sweep_table.means(table, "test_error"), sweep_table.means(table, "train_error")
    models = list(dict.fromkeys(model for model, _ in test))
    if not models:
        return False
    figure, axes = pyplot.subplots(
        1, len(models), figsize=(1.5 + 6 * len(models), 4.8), squeeze=False, sharey=True, layout="constrained"
    )
    for panel, model in zip(axes[0], models, strict=True):
        noises = [noise for of, noise in test if of == model]
        for number, noise in enumerate(noises):
            colour = f"C{number}"
            _curve(panel, test[model, noise], colour, "-", "o", f"{_words(noise)}, test")
            _curve(panel, train[model, noise], colour, "--", "x", "training")
            width = sweep_table.interpolation_width(train[model, noise])
            if width is not None:
                panel.axvline(width, color=colour, linestyle=":", linewidth=1)
        widths = sorted({width for noise in noises for width in test[model, noise]})
        panel.set_xscale("log", base=2)
        panel.xaxis.set_major_locator(ticker.FixedLocator(_apart(widths)))
        panel.xaxis.set_minor_locator(ticker.NullLocator())
        panel.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
        panel.set(title=model, xlabel="width")
        panel.set_ylim(bottom=min(-0.005, -0.02 * panel.get_ylim()[1]))
        panel.grid(alpha=0.3)
        panel.legend(fontsize="small")
    axes[0, 0].set_ylabel("error (share of examples)")
    figure.suptitle(f"{title}\ndotted: smallest width that fits all training labels", fontsize="medium")
    with files.write_whole(path) as whole:
        figure.savefig(whole, format="png", dpi=130, metadata={"Software": None})
    pyplot.close(figure)
    return True


def _curve(panel: Any, values: Mapping[int, Any], colour: str, style: str, marker: str, label: str) -> None:
    widths = sorted(values)
    panel.plot(
        widths,
        [values[width].mean() for width in widths],
        style,
        color=colour,
        marker=marker,
        markersize=4,
        label=label,
    )
    low, high = ([getattr(values[width], name)() for width in widths] for name in ("min", "max"))
    panel.fill_between(widths, low, high, color=colour, alpha=0.15, linewidth=0)


def _words(noise: str) -> str:
    return "no noise" if noise == "none" else f"{noise.replace('-', ' ')} noise"


def _apart(widths: Sequence[int]) -> list[int]:
    """Those widths whose numbers have room beside one another on a logarithmic axis."""
    shown: list[int] = []
    for width in widths:
        if not shown or width >= 1.15 * shown[-1]:
            shown.append(width)
    return shown
