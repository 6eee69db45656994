"""How every chart of a report looks: one palette, one style, one size, kept as PNG and as SVG.

Charts are drawn with matplotlib's object interface (no pyplot, no display, no global figures). Each is kept twice: as a
PNG file for papers and slides, and as SVG for the page itself. In the SVG the colours of the palette are replaced by
CSS variables and the text stays text, so that one drawing suits a light and a dark page and takes the page's font. All
charts have the same size, which fills half a wide page and the whole of a phone.
"""

from collections.abc import Callable
import dataclasses
import io
import re
from typing import Any

# Palette: matplotlib draws these colours; the page's style sheet gives each name a light and a dark value.
PALETTE = {
    "ink": "#20262c",
    "muted": "#68717a",
    "grid": "#e4e4de",
    "accent": "#1f6a78",
    "accent-soft": "#9cc3c6",
    "accent-faint": "#cfe0e0",
    "harm": "#b0532c",
}
_SIZE_INCHES = (5.0, 3.3)
_DOTS_PER_INCH = 200
STYLE = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.0,
    "axes.labelsize": 9.0,
    "axes.labelcolor": PALETTE["muted"],
    "axes.edgecolor": PALETTE["muted"],
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": PALETTE["grid"],
    "grid.linewidth": 0.7,
    "xtick.color": PALETTE["muted"],
    "ytick.color": PALETTE["muted"],
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "ytick.major.size": 0,
    "text.color": PALETTE["ink"],
    "svg.fonttype": "none",
    "svg.hashsalt": "heldout",
    "axes.unicode_minus": True,
}


@dataclasses.dataclass(frozen=True)
class Chart:
    """One chart: the PNG file as bytes, and the SVG element for the page."""

    name: str
    png: bytes
    svg: str


def chart(name: str, draw: Callable[[Any], None]) -> Chart:
    """Draws one chart and returns it as PNG and SVG."""
    import matplotlib  # heavy, and needed by reports only
    from matplotlib.backends import backend_agg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=_SIZE_INCHES, layout="constrained")
        backend_agg.FigureCanvasAgg(figure)
        draw(figure.add_subplot())
        picture, drawing = io.BytesIO(), io.StringIO()
        figure.savefig(picture, format="png", dpi=_DOTS_PER_INCH, facecolor="white", metadata={"Software": None})
        figure.savefig(drawing, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return Chart(name, picture.getvalue(), _for_page(drawing.getvalue(), name))


def _for_page(svg: str, name: str) -> str:
    """The <svg> element alone, with CSS variables for colours, no fixed size, and ids that no other chart has."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r'id="([^"]+)"', rf'id="{name}-\1"', svg)
    svg = re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r"font-family: [^;\"]*;?", "", svg)
    svg = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", svg)
    for variable, colour in PALETTE.items():
        svg = re.sub(re.escape(colour), f"var(--{variable})", svg, flags=re.IGNORECASE)
    return svg.strip()


def short_number(value: float, _position: int | None = None) -> str:
    """1000 -> "1k", 2500000 -> "2.5M"."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def legend(axes: Any, place: str) -> None:
    """The key of a chart, in the manner of all charts.

    Args:
        axes: of the chart.
        place: as matplotlib names it, such as "upper right"; "above" for a line over the chart, which hides nothing.
    """
    style = {"frameon": False, "fontsize": 8.5, "labelcolor": PALETTE["muted"], "handlelength": 1.4}
    where = {"loc": "lower right", "bbox_to_anchor": (1, 1), "ncols": 3} if place == "above" else {"loc": place}
    if axes.get_legend_handles_labels()[1]:
        axes.legend(**style, **where)
