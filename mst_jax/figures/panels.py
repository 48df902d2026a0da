"""The one kind of figure that most pictures are: small panels of lines over agent steps.

Every seed is a thin line and the mean over seeds a bold one. Colours are Okabe and Ito's; lines of
different quantities also differ in style, so that they can be told apart in grey.
"""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from mst_jax.analysis.lines import Lines, Panels
from mst_jax.figures.style import PALETTE, plain
from mst_jax.runs.health import mean_of_known

STYLES = ("-", "--", "-.", ":")
COLUMNS = 3


def draw_panels(
    panels: Panels,
    *,
    title: str,
    ylabel: str = "",
    xlabel: str = "agent steps",
    shared: bool = True,
) -> Figure:
    """Draws one panel after the other, three a row, with one legend.

    Args:
        panels: title -> name -> lines; the same names look the same in every panel.
        title: of the figure.
        ylabel: what the values are.
        xlabel: what they are drawn over.
        shared: whether all panels have the same vertical range.

    Returns:
        The figure, not saved.

    Raises:
        ValueError: there is no panel.
    """
    if not panels:
        raise ValueError("there is no panel to draw")
    names = list(dict.fromkeys(name for panel in panels.values() for name in panel))
    looks = {
        name: (PALETTE[i % len(PALETTE)], STYLES[i % len(STYLES)]) for i, name in enumerate(names)
    }
    columns = min(COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(max(3.2 * columns, 5.0), 2.1 * rows + 0.9), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=shared)
    for axis, (heading, panel) in zip(axes.flat, panels.items(), strict=False):
        for name, lines in panel.items():
            _draw(axis, lines, *looks[name], name)
        axis.set_title(plain(heading), fontsize=8)
        axis.tick_params(labelsize=7)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes.flat[len(panels) :]:
        axis.axis("off")
    for column in axes.T:  # where a column's last panel is missing, the one above has the numbers
        lowest = [axis for axis in column if axis.axison][-1]
        lowest.tick_params(labelbottom=True)
        lowest.set_xlabel(xlabel, fontsize=7)
        lowest.xaxis.set_major_formatter(EngFormatter(sep=""))
    figure.suptitle(plain(title), fontsize=9)
    figure.supylabel(ylabel, fontsize=8)
    if len(names) > 1:
        handles = {
            label: handle
            for axis in axes.flat
            for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
        }
        figure.legend(
            handles.values(),
            handles.keys(),
            loc="outside lower center",
            ncols=4,
            fontsize=7,
            frameon=False,
        )
    return figure


def _draw(axis: Axes, lines: Lines, colour: str, style: str, name: str) -> None:
    if len(lines.values) > 1:
        axis.plot(lines.steps, lines.values.T, color=colour, alpha=0.3, linewidth=0.7)
    marker = "o" if len(lines.steps) == 1 else ""
    look: dict[str, Any] = {"color": colour, "linestyle": style, "linewidth": 1.8, "marker": marker}
    axis.plot(lines.steps, mean_of_known(lines.values, axis=0), label=plain(name), **look)
