"""All pictures that a run's files allow, and the page that shows them and a film together."""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from mst_jax.analysis.curves import read_curve, read_rows
from mst_jax.analysis.layers import Layer, Layers, read_layers
from mst_jax.analysis.lines import Panels
from mst_jax.analysis.moving import movement
from mst_jax.analysis.signs import plasticity
from mst_jax.figures.covariance import draw_covariances
from mst_jax.figures.curves import draw_curves
from mst_jax.figures.degrees import draw_degrees, layers_of
from mst_jax.figures.page import Picture, make_page
from mst_jax.figures.panels import draw_panels
from mst_jax.figures.style import save_figure
from mst_jax.figures.topology_figure import draw_topology, title_of
from mst_jax.names import dotted
from mst_jax.runs import Settings, read_settings
from mst_jax.runs.covariances import read_covariances
from mst_jax.runs.folder import FILMS
from mst_jax.runs.health import describe_diverged, diverged_by, healthy_at, read_diverged
from mst_jax.runs.history import read_history
from mst_jax.runs.json_file import read_json
from mst_jax.topology import TextTable

PAGE, PICTURES, FILM = "inspect.html", "pictures", "Film"
LARGEST_FILM = 30_000_000  # bytes; a page with more is none to be mailed


class Report(NamedTuple):
    """What was written.

    Attributes:
        page: the HTML page.
        pictures: every picture.
        absent: title of a picture that could not be drawn -> why.
    """

    page: Path
    pictures: list[Picture]
    absent: dict[str, str]


class Sources:
    """A run's data, each read when the first picture asks; ValueError when it is not there."""

    def __init__(self, folder: Path, seed: int | None) -> None:
        self.folder, self.seed = folder, seed
        self.settings: Settings = read_settings(folder)

    @cached_property
    def layers(self) -> Layers:
        """Masks of one seed before training and now."""
        return read_layers(self.folder, self.seed)

    @cached_property
    def moves(self) -> dict[str, Panels]:
        """What the topology history says."""
        return movement(read_history(self.folder))

    @cached_property
    def diverged(self) -> dict[int, int]:
        """Seed -> the step by which it had diverged."""
        return read_diverged(self.folder)

    @property
    def title(self) -> str:
        """What the run is, and which of its seeds diverged."""
        settings = self.settings
        seeds = f"{settings.seeds} seeds" if settings.seeds > 1 else f"seed {settings.seed}"
        lost = f"; {describe_diverged(self.diverged)}" if self.diverged else ""
        return f"{settings.task}, {settings.agent}, {settings.recipe}, {seeds}{lost}"


class Family(NamedTuple):
    """One picture: heading, explanation, and how to draw it."""

    title: str
    text: str
    draw: Callable[[Sources], Figure]


def write_report(folder: Path, output: Path | None = None, seed: int | None = None) -> Report:
    """Draws all that the run's data allow into OUTPUT/pictures and OUTPUT/inspect.html.

    Args:
        folder: run folder.
        output: where to write; the run folder by default.
        seed: whose masks and gradients are shown where one seed must be chosen; the first by
            default. Curves always show every seed.

    Returns:
        What was written, and why the rest was not.

    Raises:
        ValueError: when the folder is not a run or does not hold the seed.
    """
    sources = Sources(folder, seed)
    sources.settings.index_of(seed)  # or it is refused
    output = folder if output is None else output
    (output / PICTURES).mkdir(parents=True, exist_ok=True)
    pictures, absent = [], {}
    try:
        pictures.append(_film(folder))
    except ValueError as error:
        absent[FILM] = str(error)
    for name, family in FAMILIES.items():
        path = output / PICTURES / f"{name}.png"
        try:
            figure = family.draw(sources)
        except ValueError as error:
            absent[family.title] = str(error)
            continue
        save_figure(figure, path)
        pictures.append(Picture(family.title, family.text, path))
    page = output / PAGE
    page.write_text(make_page(sources.title, _tables(sources), pictures, absent), encoding="utf-8")
    return Report(page, pictures, absent)


def _film(folder: Path) -> Picture:
    """The newest film in a run folder; ValueError where there is none, or none for a page."""
    paths = [folder / name for name in FILMS if (folder / name).is_file()]
    if not paths:
        raise ValueError(
            f"there is no {' or '.join(FILMS)} in the run folder (docs/environments.md, Films)"
        )
    path = max(paths, key=lambda path: path.stat().st_mtime)
    size = path.stat().st_size
    if not 0 < size <= LARGEST_FILM:
        raise ValueError(f"{path.name} has {size:,} bytes; a page takes 1 to {LARGEST_FILM:,}")
    text = "An episode of a policy without exploration, the newest one when it was filmed."
    return Picture(FILM, text, path)


def layer_table(layers: list[Layer]) -> TextTable:
    """Shape, density before and now, and how much of a layer was not there at the start."""
    rows = [
        (
            layer.name,
            " x ".join(map(str, layer.after.shape)),
            f"{layer.before.mean():.4f}",
            f"{layer.after.mean():.4f}",
            f"{np.mean(~layer.before[layer.after]) if layer.after.any() else 0.0:.1%}",
        )
        for layer in layers
    ]
    return TextTable(("layer", "shape", "density at start", "density", "of it grown"), rows)


def _tables(sources: Sources) -> dict[str, TextTable]:
    tables = {}
    for heading, name in (("Settings", "config.json"), ("Versions and machine", "versions.json")):
        try:
            values = dotted(read_json(sources.folder / name))
        except (ValueError, OSError) as error:
            values = {"not readable": error}
        tables[heading] = TextTable(("name", "value"), [(k, str(v)) for k, v in values.items()])
    try:
        found = sources.layers
    except ValueError:  # the pictures that need a checkpoint say that there is none
        return tables
    heading = f"Layers of seed {found.seed} at step {found.step:,}"
    return {heading: layer_table(found.layers), **tables}


def _returns(sources: Sources) -> Figure:
    return draw_curves([read_curve(sources.folder)])


def _masks(sources: Sources) -> Figure:
    found = sources.layers
    if not found.layers:
        raise ValueError("every module is dense: there are no masks")
    return draw_topology(found.layers, title_of(found))


def _degrees(sources: Sources) -> Figure:
    found = sources.layers
    return draw_degrees(layers_of(found.masks), f"{sources.title}, step {found.step:,}")


def _moves(name: str, ylabel: str, xlabel: str = "agent steps") -> Callable[[Sources], Figure]:
    return lambda sources: draw_panels(
        sources.moves[name], title=sources.title, ylabel=ylabel, xlabel=xlabel
    )


def _plasticity(sources: Sources) -> Figure:
    panels = plasticity([_until_diverged(rows) for rows in read_rows(sources.folder)])
    if not panels:
        raise ValueError("the metric rows hold no diagnostics")
    return draw_panels(panels, title=sources.title, shared=False)


def _until_diverged(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of a seed while it was healthy: later measurements of its networks say nothing."""
    diverged = diverged_by(rows)
    return [row for row in rows if healthy_at(row["step"], diverged)]


def _covariances(sources: Sources) -> Figure:
    index = sources.settings.index_of(sources.seed)
    title = f"{sources.title}; seed {sources.settings.seed_list[index]}"
    return draw_covariances(read_covariances(sources.folder, index), title)


SNAPSHOTS = "Read from the snapshots of the topology history; what happens between two is not seen."

FAMILIES = {
    "returns": Family(
        "Learning curve",
        "Mean return of the evaluation episodes. Thin lines are seeds, the bold one is their mean, "
        "and the shade its 95 % bootstrap interval, too narrow with fewer than about five seeds. "
        "A cross is the last return of a seed that diverged; the mean is dotted where it is not of "
        "all seeds.",
        _returns,
    ),
    "masks": Family(
        "Masks, before training and now",
        "Each pair is one sparse layer of one seed: rows are inputs, columns outputs. Dark weights "
        "were kept, blue ones have grown and orange ones went since the start. Vertical or "
        "horizontal bands mean that some neurons are favoured.",
        _masks,
    ),
    "degrees": Family(
        "Degree distributions",
        "How many weights come into each output (left of a pair) and leave each input (right). The "
        "line is what the same number of weights spread at random would give. A static random mask "
        "lies on the line; bars wider than it mean hubs and neglected neurons.",
        _degrees,
    ),
    "density": Family(
        "Densities over time",
        "Share of active weights of every layer that can move. Under RigL and SET it is constant; "
        f"pruning goes down and growth goes up. {SNAPSHOTS}",
        _moves("density", "share of weights active"),
    ),
    "churn": Family(
        "Churn and exploration",
        "Share of positions that changed since the snapshot before (a replaced weight counts "
        "twice), and share of positions that were ever active. Exploration far above the density "
        f"means that the layer has tried many topologies. {SNAPSHOTS}",
        _moves("churn", "share of positions"),
    ),
    "dead": Family(
        "Dead neurons",
        "Share of outputs that no weight comes into, and of inputs that no weight leaves. Such "
        "neurons are lost to the network until a rewire connects them again.",
        _moves("dead", "share of neurons"),
    ),
    "survival": Family(
        "Survival of weights",
        "Of the weights that were there at the start, and of those that came by some later "
        "snapshots, the share that has been active ever since. Steep lines are weights still on "
        f"trial; flat ones have settled. {SNAPSHOTS}",
        _moves("survival", "share still active"),
    ),
    "age": Family(
        "Age of weights",
        "Share of the weights active now that have been active without a break for at least so "
        "many steps.",
        _moves("age", "share at least as old", "age in agent steps"),
    ),
    "plasticity": Family(
        "Signs of plasticity",
        "Rank of the features, dormant units, norms and agreement of gradients, as far as the "
        "metric rows hold them; a line for each module. docs/diagnostics.md says what they mean.",
        _plasticity,
    ),
    "covariance": Family(
        "Gradient covariance, early and late",
        "Cosines between the gradients of samples of one batch. Purple pairs agree, orange pairs "
        "undo each other, white ones do not interfere. Blocks mean groups of samples that are "
        "learned alike.",
        _covariances,
    ),
}
