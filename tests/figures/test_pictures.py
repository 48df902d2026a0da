"""Pictures of any number of seeds and layers, from small files written here."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread
from small_runs import small_settings

from mst_jax import topology
from mst_jax.analysis import Curve, Layer, edges, movement, plasticity, read_history
from mst_jax.analysis.lines import Lines
from mst_jax.figures import (
    draw_covariances,
    draw_curves,
    draw_degrees,
    draw_panels,
    draw_topology,
    save_figure,
    write_report,
)
from mst_jax.figures.degrees import layers_of
from mst_jax.figures.run_report import _until_diverged
from mst_jax.figures.style import plain
from mst_jax.runs.config_file import write_settings
from mst_jax.runs.covariances import read_covariances
from mst_jax.runs.folder import INITIAL_TOPOLOGY, TOPOLOGY

RNG = np.random.default_rng(0)


def write_masks(folder, seeds, layers, snapshots=4, shape=(6, 5)):
    """A run folder with settings and a topology history in which some weights move."""
    write_settings(folder, small_settings(seeds=seeds))
    (folder / TOPOLOGY).mkdir()
    masks = {f"critic/layer_{i}/kernel": RNG.random((seeds, *shape)) < 0.5 for i in range(layers)}
    static = {"actor/kernel": RNG.random((seeds, *shape)) < 0.5}
    topology.save_masks(folder / INITIAL_TOPOLOGY, {**masks, **static})
    for step in range(1, snapshots):
        masks = {name: m ^ (RNG.random(m.shape) < 0.2) for name, m in masks.items()}
        topology.save_masks(folder / TOPOLOGY / f"{step * 100:012d}.npz", masks)
    return masks


def picture(figure, folder):
    path = folder / "picture.png"
    save_figure(figure, path)
    image = imread(path)
    assert image[..., :3].std() > 0.01, "not blank"
    return image


@pytest.mark.parametrize(("seeds", "layers"), [(8, 1), pytest.param(1, 40, marks=pytest.mark.slow)])
def test_moving_masks_of_any_number_of_seeds_and_layers(tmp_path, seeds, layers):
    last = write_masks(tmp_path, seeds, layers)
    found = read_history(tmp_path)
    np.testing.assert_array_equal(found.steps, [0, 100, 200, 300])
    assert found.layers == [f"critic/layer_{i}/kernel" for i in range(layers)]
    pictures = movement(found)
    assert pictures.keys() == {"density", "churn", "dead", "survival", "age"}
    density = pictures["density"][f"critic/layer_{layers - 1}"]["density"]
    assert density.values.shape == (seeds, 4)
    by_hand = last[found.layers[-1]].mean(axis=(1, 2))
    np.testing.assert_allclose(density.values[:, -1], by_hand)
    picture(draw_panels(pictures["survival"], title="title", ylabel="share"), tmp_path)
    picture(draw_degrees(layers_of(last), "title"), tmp_path)


def test_masks_of_a_layer_are_those_of_the_files(tmp_path):
    last = write_masks(tmp_path, seeds=3, layers=2)
    found = read_history(tmp_path)
    masks = found.masks("critic/layer_1/kernel")
    assert masks.shape == (3, 4, 6, 5)
    np.testing.assert_array_equal(masks[:, -1], last["critic/layer_1/kernel"])
    age = movement(found)["age"]["critic/layer_1"]["active weights"]
    np.testing.assert_array_equal(age.steps, [0, 100, 200, 300])
    by_hand = [(edges.ages(seed, found.steps) >= 200).mean() for seed in masks]
    np.testing.assert_allclose(age.values[:, 2], by_hand)


def test_kernels_with_more_axes_and_vectors_become_matrices(tmp_path):
    write_masks(tmp_path, seeds=2, layers=1, shape=(3, 3, 4, 5))
    assert read_history(tmp_path).masks("critic/layer_0/kernel").shape == (2, 4, 36, 5)
    assert layers_of({"c/kernel": np.ones((2, 3, 3, 4, 5), bool)})["c"].shape == (2, 36, 5)
    assert layers_of({"c/bias": np.ones((2, 5), bool)}) == {}


def test_an_empty_history_is_explained_in_one_line(tmp_path):
    write_settings(tmp_path, small_settings())
    with pytest.raises(ValueError, match="holds no topology history") as error:
        read_history(tmp_path)
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="not a run folder"):
        read_history(tmp_path / "nowhere")


def test_a_run_with_settings_only_still_has_a_page_that_says_what_is_missing(tmp_path):
    write_settings(tmp_path, small_settings())
    report = write_report(tmp_path)
    assert report.pictures == []
    assert len(report.absent) == 11
    text = report.page.read_text()
    for title, why in report.absent.items():
        assert f"<li>{title}: " in text
        assert "\n" not in why
    assert "critic.sparsity" in text
    with pytest.raises(ValueError, match=r"holds the seeds \[0, 1\], not 7"):
        write_report(tmp_path, seed=7)
    (tmp_path / "versions.json").write_text("[]")  # fault D10
    assert "versions.json is damaged: it holds a list" in write_report(tmp_path).page.read_text()


def test_the_newest_film_of_a_run_is_on_its_page(tmp_path, monkeypatch):
    write_settings(tmp_path, small_settings())
    for age, (name, kind) in enumerate({"film.mp4": "video/mp4", "film.gif": "image/gif"}.items()):
        path = tmp_path / name
        path.write_bytes(bytes([age]))
        os.utime(path, (age, age))
        report = write_report(tmp_path)
        assert [picture.path for picture in report.pictures] == [path]
        page = report.page.read_text()
        assert page.count("data:image/") + page.count("data:video/") == 1
        assert f"data:{kind};base64,{['AA==', 'AQ=='][age]}" in page
        assert ("<video controls" in page) == (name == "film.mp4")
        assert len(report.absent) == 10
    path.write_bytes(b"")
    assert "film.gif has 0 bytes" in write_report(tmp_path).absent["Film"]


def row(step, **values):
    return {"step": step, "kind": "diagnose", **values}


def test_metric_rows_become_a_panel_for_each_metric_and_a_line_for_each_module(tmp_path):
    rows = [
        [row(0, **{"critic/srank": 3.0, "actor/srank": 1.0}), row(10, **{"critic/srank": None})],
        [row(10, **{"critic/srank": 5.0, "critic/dormant_0.1": 0.2, "critic/loss": 1.0})],
    ]
    panels = plasticity(rows)
    assert list(panels) == ["srank", "dormant_0.1"]
    critic = panels["srank"]["critic"]
    np.testing.assert_array_equal(critic.steps, [0, 10])
    np.testing.assert_array_equal(critic.values, [[3, np.nan], [np.nan, 5]])
    np.testing.assert_array_equal(panels["srank"]["actor"].values, [[1], [np.nan]])
    picture(draw_panels(panels, title="title", shared=False), tmp_path)
    assert plasticity([[row(0, **{"critic/loss": 1.0})]]) == {}


def test_lines_that_are_all_missing_are_a_gap(tmp_path):
    lines = Lines(np.array([0, 1]), np.full((2, 2), np.nan))
    picture(draw_panels({"panel": {"line": lines}}, title="title"), tmp_path)
    with pytest.raises(ValueError, match="there is no panel"):
        draw_panels({}, title="title")


def test_degrees_of_full_layers_are_not_drawn():
    with pytest.raises(ValueError, match="every layer is full"):
        draw_degrees({"layer": np.ones((1, 3, 3), bool)}, "title")


def test_covariances_early_and_late(tmp_path):
    write_settings(tmp_path, small_settings())
    with pytest.raises(ValueError, match="no gradient covariances"):
        read_covariances(tmp_path)
    (tmp_path / "diagnostics").mkdir()
    for step in (900, 1000, 50):  # not in the order of their names
        matrix = np.full((2, 4, 4), step / 1000)
        np.savez(tmp_path / "diagnostics" / f"covariance_{step}.npz", critic=matrix, actor=-matrix)
    pairs = read_covariances(tmp_path, 1)
    assert list(pairs) == [f"{m}, step 50 and step 1,000" for m in ("critic", "actor")]
    before, after = pairs["actor, step 50 and step 1,000"]
    assert (before[0, 0], after[0, 0]) == (-0.05, -1.0)
    colours = picture(draw_covariances(pairs, "title"), tmp_path)[..., :3].reshape(-1, 3)
    purple, orange = colours[:, 2] - colours[:, 0], colours[:, 0] - colours[:, 2]
    assert purple.max() > 0.2
    assert orange.max() > 0.2


HOSTILE = [r"$\frac{$", "a$b$c", r"\$ $", "_hidden", "<b>&|"]


@pytest.mark.parametrize("name", HOSTILE)
def test_names_of_users_are_drawn_letter_by_letter(tmp_path, name):
    """Fault D16: matplotlib reads mathematics between dollar signs, and fails where it is none."""
    images = []
    for text, style in ((plain(name), {}), (name, {"parse_math": False})):
        figure = Figure(figsize=(2, 1))
        figure.text(0.1, 0.5, text.removeprefix(" "), **style)
        images.append(picture(figure, tmp_path))
    np.testing.assert_array_equal(*images)


@pytest.mark.parametrize("name", [HOSTILE[0], "_hidden"])
def test_every_picture_takes_names_of_users(tmp_path, name):
    """Fault D16, in titles, panels, legends and labels."""
    steps = np.array([0, 1])
    values = np.array([[1.0, 2.0], [3.0, np.nan]])
    lines = Lines(steps, values)
    layer = Layer(name, np.eye(3, dtype=bool), np.eye(3, dtype=bool))
    matrix = np.zeros((2, 2))
    curve = Curve(name, name, steps, values, np.array([True, False]), {1: 1}, 1.0)
    for figure in (
        draw_curves([curve, curve]),
        draw_panels({name: {name: lines, "b": lines}}, title=name),
        draw_topology([layer], name),
        draw_topology([Layer(name, *[np.ones((1, 1), bool)] * 2)], name),
        draw_degrees({name: layer.after[None]}, name),
        draw_covariances({name: (matrix, matrix)}, name),
    ):
        picture(figure, tmp_path)


def test_the_legend_has_every_name():
    """Faults D16 and A1: one that begins with an underscore too, and which seed diverged."""
    values = np.array([[1.0, 2.0, 3.0], [5.0, np.nan, np.nan]])
    curve = Curve(
        "_mine", "probe:point", np.arange(3), values, np.array([True, False]), {1: 1}, 1.0
    )
    (axis,) = draw_curves([curve]).axes
    texts = [text.get_text() for text in axis.get_legend().get_texts()]
    assert texts == [
        " _mine (mean of 2 seeds, 95 % interval; dotted: of fewer, 1 in the end)",
        "seed 1 diverged by step 1",
    ]
    whole, dots, cross = axis.lines[-3:]
    np.testing.assert_array_equal(whole.get_ydata(), [3.0, np.nan, np.nan])
    np.testing.assert_array_equal(dots.get_ydata(), [3.0, 2.0, 3.0])
    assert cross.get_xydata().tolist() == [[0.0, 5.0]], "its last return"


def test_measurements_of_a_diverged_seed_are_not_drawn():
    rows = [row(0, healthy=True), row(10, healthy=False), row(20, healthy=True)]
    assert [r["step"] for r in _until_diverged(rows)] == [0]


def test_the_documentation_s_block_runs(tmp_path):
    write_masks(tmp_path, seeds=2, layers=1)
    page = Path(__file__).parents[2] / "docs" / "looking.md"
    (code,) = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    names = {"folder": tmp_path}
    exec(code, names)
    assert names["survived"].shape == (4,)
    assert names["survived"][0] == 1.0
