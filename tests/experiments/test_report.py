"""Reports of studies whose run folders are written here, so that every number is known."""

import dataclasses
import json

import numpy as np
import pytest

from experiments.launch.collect import collect
from experiments.launch.comparisons import compare_all
from experiments.launch.study_folder import StudyFolder
from experiments.launch.study_report import _table, study_report
from experiments.studies import STUDIES, figures
from experiments.studies.score_figures import over_tasks
from mst_jax.envs import Discrete, Observation, Spec, vector_spec
from mst_jax.figures import save_figure
from mst_jax.runs.config_file import write_settings
from mst_jax.runs.task_file import write_spec


def fake_run(folder, cell, returns):
    """A finished run with these final returns of its seeds; they begin at zero, None diverged."""
    run = folder.run(cell)
    run.mkdir(parents=True)
    suite = cell.settings.task.partition(":")[0]  # extras below; sizes do not matter here
    if suite == "gym":
        write_spec(run, vector_spec(cell.settings.task, 18, 6, 1000))
    if suite == "atari":
        pictures = Observation((84, 84, 4), "uint8", history=4, fill="zeros")
        write_spec(run, Spec(cell.settings.task, pictures, Discrete(18), None, 4))
    write_settings(run, cell.settings)
    for seed, value in zip(cell.settings.seed_list, returns, strict=True):
        (run / f"seed_{seed}").mkdir()
        rows = [
            {"step": step, "kind": "eval", "seed": seed, "healthy": True, "return": reached}
            for step, reached in ((0, 0.0), (cell.settings.steps, value))
        ]
        if value is None:
            rows[-1] |= {"healthy": False, "return": 1e6}  # what older versions wrote
        every, end = cell.settings.log_every, cell.settings.steps
        steps = [*range(every, end, every), end]
        own = {"kind": "train", "seed": seed, "healthy": value is not None, "episodes": 2}
        rows += [{"step": step, **own, "return": value} for step in steps if value is not None]
        rows += [{"step": step, **own} for step in steps if value is None]
        text = "".join(
            json.dumps({**row, "wall/seconds": 1.0 + row["step"]}) + "\n" for row in rows
        )
        (run / f"seed_{seed}" / "metrics.jsonl").write_text(text)
    (run / "fingerprint.txt").write_text("0" * 64 + "\n")


def make_study(tmp_path, name, **changes):
    study = STUDIES[name]
    scale = dataclasses.replace(study.scales["smoke"], **changes)
    folder = StudyFolder(tmp_path / f"{name}-smoke")
    return study, folder, folder.join(name, "smoke", study.cells("smoke", scale), "a command")


def report_of(study, folder, cells):
    results = collect(folder, cells, training=study.judge is not None)
    return study_report(study, folder, folder.manifest(), cells, results, {}), results


def line_with(text, *parts):
    lines = [line for line in text.splitlines() if all(part in line for part in parts)]
    assert len(lines) == 1, (parts, lines)
    return lines[0]


def test_supported_and_unsupported_differences(tmp_path):
    study, folder, cells = make_study(tmp_path, "mst_vs_uniform", seeds=8, block=8)
    base = np.arange(8.0)
    finals = {"mst": base, "dense": base - 100, "all_static": base[::-1], "swap": base + 0.01}
    for cell in cells:
        if cell.labels["recipe"] in finals:
            fake_run(folder, cell, finals[cell.labels["recipe"]])
    text, results = report_of(study, folder, cells)
    assert "supported: worse" in line_with(text, "- mrq dense-1x1 on ")
    assert "interval contains zero" in line_with(text, "- mrq all_static-1x1 on ")
    assert "supported: better" in line_with(text, "- mrq swap-1x1 on ")
    assert "no seed in common" in line_with(text, "- mrq all_rigl-1x1:")
    assert line_with(text, "all_rigl-1x1: seeds") == (
        "- probe:point mrq all_rigl-1x1: seeds 0, 1, 2, 3, 4, 5, 6, 7"
    )
    row = line_with(text, "| mrq | dense-1x1 | probe:point |").split(" | ")
    assert row[3] == "-100 [-100, -100] (return)"
    assert (row[4], row[5], row[6]) == ("8", "0%", f"{2 / 2**8:.3g}")
    per_task = line_with(text, "| probe:point | mrq | mst-1x1 |").split(" | ")
    assert per_task[3] == "8/8"
    assert per_task[4].startswith("3.5 [")
    assert per_task[6] == "0, 1, 2, 3, 4, 5, 6, 7"
    assert "4 finished, 1 not begun" in text
    assert "a command" in text
    assert "4 cells: Python" in text
    assert len(results.rows) == 4 * 8 * 2
    assert results.rows[0]["label.recipe"] == "mst"


def test_few_seeds_decide_nothing(tmp_path):
    study, folder, cells = make_study(tmp_path, "mst_vs_uniform")
    for cell in cells:
        fake_run(folder, cell, [0.0, 0.0] if cell.labels["recipe"] == "mst" else [5.0, 6.0])
    text, _ = report_of(study, folder, cells)
    assert "not decidable: 2 seeds a task are fewer than 5" in line_with(
        text, "- mrq dense-1x1 on "
    )
    assert "Nothing: every planned seed is in the results" in text


def test_a_diverged_seed_is_missing_and_never_wins(tmp_path):
    """Fault A1: a finite return of a policy that does nothing won every comparison."""
    study, folder, cells = make_study(tmp_path, "mst_vs_uniform", seeds=2, block=2)
    for cell in cells:
        lost = {"dense": [None, None], "swap": [7.0, None]}
        fake_run(folder, cell, lost.get(cell.labels["recipe"], [5.0, 6.0]))
    text, results = report_of(study, folder, cells)
    assert "Nothing: every planned seed" not in text
    assert line_with(text, "- probe:point mrq dense-1x1: seed 0 diverged") == (
        "- probe:point mrq dense-1x1: seed 0 diverged by step 400, seed 1 diverged by step 400"
    )
    assert "mrq swap-1x1: seed 1 diverged by step 400" in text
    row = line_with(text, "| probe:point | mrq | dense-1x1 |").split(" | ")
    assert row[3:7] == ["0/2 (few seeds)", "-", "-", "diverged by 400, diverged by 400"]
    row = line_with(text, "| probe:point | mrq | swap-1x1 |").split(" | ")
    assert row[3] == "1/2 (few seeds)"
    assert row[4].startswith("7 [")
    assert row[6] == "7, diverged by 400"
    found, impossible = compare_all(results, study.baseline)
    assert impossible == [
        "mrq dense-1x1 on probe:point: no pair is left: 2 of 2 runs diverged, and 0 of the "
        "baseline's"
    ]
    (swap,) = (c for c in found if c.variant == "swap-1x1")
    assert (swap.paired.pairs, swap.pairs, swap.diverged, swap.wins) == (1, 2, (1, 0), 0.5)
    assert swap.better.value == 0.5, "7 beats 5 and 6, the diverged run loses to both"
    assert "1 of its 2 runs diverged" in line_with(text, "- mrq swap-1x1 on probe:point:")


def test_losing_bad_seeds_does_not_make_a_variant_better(tmp_path):
    """Fault A1: what is left of a diverging variant may be ahead, and is not called better."""
    study, folder, cells = make_study(tmp_path, "mst_vs_uniform", seeds=16, block=16)
    base = np.arange(16.0)
    none = [None] * 8
    finals = {
        "mst": base,
        "dense": [*base[:8] + 100, *none],  # ahead where it is left, and lost in half
        "swap": [*base[:15] + 100, None],  # ahead even if that one counts as the worst
        "all_static": [*base[:8] - 100, *none],  # behind either way
        "all_rigl": base,
    }
    for cell in cells:
        fake_run(folder, cell, finals[cell.labels["recipe"]])
    text, results = report_of(study, folder, cells)
    dense = line_with(text, "- mrq dense-1x1 on ")
    assert "no difference is supported: the pairs left say better, but" in dense
    assert dense.endswith("(8 of its 16 runs diverged, and 0 of the baseline's).")
    assert "supported: better" in line_with(text, "- mrq swap-1x1 on ")
    assert "supported: worse" in line_with(text, "- mrq all_static-1x1 on ")
    assert "| 8 of 16 | 50% |" in line_with(text, "| mrq | dense-1x1 | probe:point |")
    # The other way round: a baseline that lost its bad seeds does not make others worse.
    labels = next(cell.labels for cell in cells if cell.labels["recipe"] == "dense")
    (mst,) = (c for c in compare_all(results, labels)[0] if c.variant == "mst-1x1")
    assert mst.paired.difference.high < 0
    assert mst.diverged == (0, 8)
    assert "no difference is supported: the pairs left say worse, but" in mst.verdict(4)


def test_scores_say_of_how_many_runs_they_are(tmp_path):
    tasks = ("dmc:cartpole-swingup", "dmc:cartpole-balance")
    study, folder, cells = make_study(tmp_path, "mst_vs_uniform", tasks=tasks)
    for cell in cells:
        first = cell.settings.task == tasks[0]
        lost = {"dense": [None, None] if first else [1.0, 2.0], "swap": [None, 500.0]}
        fake_run(folder, cell, lost.get(cell.labels["recipe"], [500.0, 500.0]))
    text, _ = report_of(study, folder, cells)
    assert "| mrq | swap-1x1 | 0.5 [0.5, 0.5] |" in text
    scores = text.partition("## Normalised scores")[2].partition("##")[0]
    assert line_with(scores, "mst-1x1").endswith("| 4/4 |")
    assert line_with(scores, "swap-1x1").endswith("| 2/4 |")
    assert line_with(scores, "dense-1x1") == "| mrq | dense-1x1 | - | - | - | - | 2/4 |"
    assert "not decidable: 0 seeds a task" in line_with(text, "- mrq dense-1x1 on 2 tasks")


def test_tables_hold_any_name():
    """Fault D16 in Markdown: neither cells nor mathematics begin inside a name."""
    assert _table(["a"], [["x|y $\\frac{$"]]).splitlines()[-1] == r"| x\|y \$\frac{\$ |"


def test_scores_are_averaged_over_tasks_that_have_a_unit(tmp_path):
    tasks = ("dmc:cartpole-swingup", "dmc:cartpole-balance")
    study, folder, cells = make_study(tmp_path, "mst_vs_uniform", tasks=tasks, seeds=5, block=5)
    for cell in cells:
        level = 100.0 if cell.settings.task == tasks[0] else 300.0
        fake_run(folder, cell, np.full(5, level + 50 * (cell.labels["recipe"] == "mst")))
    text, results = report_of(study, folder, cells)
    assert "| mrq | mst-1x1 | 0.25 [0.25, 0.25] | 0.25 [0.25, 0.25] |" in text
    assert "| 10/10 |" in line_with(text, "| mrq | mst-1x1 | 0.25")
    (dense,) = (c for c in compare_all(results, study.baseline)[0] if c.variant == "dense-1x1")
    assert (dense.tasks, dense.unit) == (tasks, "score")
    assert dense.paired.difference.value == pytest.approx(-0.05)


def test_tasks_without_a_unit_are_not_averaged(tmp_path):
    tasks = ("probe:point", "probe:constant_reward")
    study, folder, cells = make_study(tmp_path, "mst_vs_uniform", tasks=tasks)
    for cell in cells:
        fake_run(folder, cell, [1.0, 2.0])
    text, _ = report_of(study, folder, cells)
    assert "Normalised scores" not in text
    for task in tasks:
        assert "not decidable: 2 seeds" in line_with(text, f"- mrq dense-1x1 on {task}:")


def test_a_damaged_cell_and_a_missing_baseline_are_named(tmp_path):
    study, folder, cells = make_study(tmp_path, "mst_vs_uniform")
    mst, dense, static, *_ = cells
    for cell in (mst, dense, static):
        fake_run(folder, cell, [1.0, 2.0])
    (folder.run(mst) / "config.json").write_text("{")
    (folder.run(static) / "versions.json").write_text("[]")
    (folder.run(dense) / "seed_1" / "metrics.jsonl").write_text("")
    folder.record_failure(cells[3], "error: the disk is full; log", 2)
    text, results = report_of(study, folder, cells)
    assert "cannot be read as a run's settings" in line_with(text, mst.id, "cannot be read:")
    assert "seeds [1] lack the evaluation at the last step" in line_with(text, dense.id)
    assert line_with(text, "versions.json is damaged").startswith("- 1 cells: ")
    assert "failed 2 times: error: the disk is full" in text
    assert "- mrq: the baseline has no results." in text
    assert results.problems.keys() == {mst.id, dense.id}


@pytest.mark.parametrize("name", sorted(STUDIES))
def test_every_figure_draws_what_there_is_and_names_what_is_not(tmp_path, name):
    """Faults A1 and D16: diverged seeds too, and a name that is no mathematics."""
    study, folder, cells = make_study(tmp_path, name)
    for index, cell in enumerate(cells[1:]):
        lost = {0: [None, 2.0], 1: [None, None]}
        fake_run(folder, cell, lost.get(index, [float(index), index + 1.0]))
    results = collect(folder, cells, training=study.judge is not None)
    columns = ("step", "flops", "wall_seconds")
    curves = [figures.learning_curves(results, column, column) for column in columns]
    drawn = [study.figure(results), *curves]
    for figure in drawn:
        words = "\n".join(text.get_text() for axis in figure.axes for text in axis.texts)
        assert f"MISSING\n{cells[0].settings.recipe}: 0 of 2 seeds" in words
        assert f"\n{cells[1].settings.recipe}: 1 of 2 seeds, 1 diverged" in words
        for cell in cells[2:3]:
            assert f"\n{cell.settings.recipe}: 0 of 2 seeds, 2 diverged" in words
    assert "1 diverged" in {text.get_text() for axis in drawn[0].axes for text in axis.texts}
    labels = drawn[1].axes[0].get_legend_handles_labels()[1]
    assert f"{cells[1].settings.recipe} (1 of 2 seeds, 1 diverged)" in labels
    assert labels.count("last return of a diverged seed") == 1
    assert sum(len(axis.lines) + len(axis.patches) for axis in drawn[0].axes) > 0


def test_a_figure_without_results_is_only_a_list_of_what_is_missing(tmp_path):
    study, folder, cells = make_study(tmp_path, "modules")
    save_figure(study.figure(collect(folder, cells)), tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 1000


def test_published_numbers_are_drawn_only_beside_runs_as_long(tmp_path):
    drawn = []
    for steps in (400, 500_000):
        study, folder, cells = make_study(
            tmp_path / str(steps), "scaling_width", tasks=("dmc:dog-run",), steps=steps
        )
        for cell in cells:
            fake_run(folder, cell, [500.0, 501.0])
        drawn.append(study.figure(collect(folder, cells)))
    labels = [{line.get_label() for line in figure.axes[0].lines} for figure in drawn]
    assert "published mean" not in labels[0]
    assert "published mean" in labels[1]
    published = [
        float(value)
        for line in drawn[1].axes[0].lines
        if line.get_label() == "published mean"
        for value in line.get_ydata()
    ]
    assert published == [403, 396, 474]


def streaming_report(tmp_path, seeds, wide_sparse, apart=100.0, **changes):
    """Cells of fixed returns whose seeds lie evenly, as long as registered."""
    scale = {"tasks": ("gym:Walker2d-v4",), "steps": 2_000_000, **changes}
    study, folder, cells = make_study(
        tmp_path, "streaming_width", seeds=seeds, block=seeds, **scale
    )
    levels = {"128-0": 2400, "512-0": 2000, "512-0.8": wide_sparse, "128-0.8": 1600}
    for cell in cells:
        values = [levels[cell.settings.recipe] + apart * seed for seed in range(seeds)]
        fake_run(folder, cell, values)
    return report_of(study, folder, cells)[0]


@pytest.mark.parametrize(
    ("wide_sparse", "apart", "verdict", "gate"),
    [
        (3100, 100, "supported", "within"),
        (1300, 100, "contradicted", "within"),
        (1900, 700, "undecided", "OUTSIDE"),
    ],
)
def test_the_registered_study_judges_by_its_rule(tmp_path, wide_sparse, apart, verdict, gate):
    """Interactions of 1900, 100 and 700 by hand; seeds lie evenly, so IQMs are means."""
    text = streaming_report(tmp_path, 5, wide_sparse, apart)
    assert f"**The published claim is {verdict}** at the look with 5 seeds a cell" in text
    assert f"of IQMs: {wide_sparse - 1600 + 400}, 99% interval" in text
    off = 2400 + 2 * apart - 2451
    assert f"Gate: cell (128, 0) is {off:+} from its published return, {gate} ±750." in text
    row = line_with(text, "| 512 | 0.8 |")
    middle = wide_sparse + 2 * apart
    assert f"| 5 | {middle} | {middle} | 3115 |" in row


@pytest.mark.parametrize(
    "changes", [{"tasks": ("probe:point",)}, {"steps": 500_010}, {"agents": ("sac",)}]
)
def test_runs_that_were_not_registered_get_no_verdict(changes, tmp_path):
    text = streaming_report(tmp_path, 5, 3100, **changes)
    assert (
        "Not what was registered (stream_ac, gym:Walker2d-v4, 2,000,000 steps): no verdict." in text
    )
    assert "| 512 | 0.8 | 5 | 3300 | 3300 |" in text
    assert "The published claim is" not in text
    assert "Gate:" not in text


def test_the_registered_study_says_nothing_before_its_look(tmp_path):
    text = streaming_report(tmp_path, 3, 3100)
    assert "No verdict: looks are planned at 5 and 10 seeds of every cell." in text
    assert "The published claim is" not in text


def games_study(tmp_path, finals, games=("Boxing", "Freeway")):
    """`atari_width` on some games; `finals` are (game, variant) -> returns of two seeds."""
    tasks = tuple(f"atari:{game}" for game in games)
    study, folder, cells = make_study(tmp_path, "atari_width", tasks=tasks)
    for cell in cells:
        game = cell.settings.task.removeprefix("atari:")
        fake_run(folder, cell, finals.get((game, cell.settings.recipe), [1.3, 2.3]))
    return study, folder, cells


def test_changes_of_games_stand_beside_published_ones(tmp_path):
    """By hand: a human scores 12.1 in Boxing and chance 0.1; the change is of means, in percent."""
    finals = {
        ("Boxing", "1-0"): [5.0, 7.2],
        ("Boxing", "3-0"): [6.1, 12.2],
        ("Boxing", "3-0.8"): [3.05, 3.05],
        ("Freeway", "1-0"): [0.0, 0.0],
    }
    study, folder, cells = games_study(tmp_path, finals)
    text, results = report_of(study, folder, cells)
    row = line_with(text, "| Boxing | 6.1 |")
    assert row == "| Boxing | 6.1 | 0.500 | 0.2 | +50 (+28) | -70 (+56) | -50 (+69) |"
    assert line_with(text, "| Freeway | 0 |").endswith("| 27.9 | - (-75) | - (-39) | - (-2) |")
    scores = text.partition("## Normalised scores")[2].partition("##")[0]
    # 1.3 and 2.3 are 0.1 and 0.1833 of a human in Boxing, 0.0439 and 0.0777 in Freeway.
    assert line_with(scores, "| der | 1-0.4 |").startswith("| der | 1-0.4 | 0.08885 [")
    assert "0 is random play and 1 a human (human-normalised)" in scores
    figure = study.figure(results)
    crosses = {
        line.get_label(): sorted(line.get_xdata())
        for axis in figure.axes
        for line in axis.lines
        if line.get_label().endswith("published")
    }
    assert crosses == {
        "3-0, published": [-75, 28],
        "3-0.4, published": [-39, 56],
        "3-0.8, published": [-2, 69],
    }
    drawn = over_tasks(results)
    (first, *_) = drawn.axes
    names = [label.get_text() for label in first.get_yticklabels()]
    assert names == [f"der {width}-{s}" for width in (1, 3) for s in ("0", "0.4", "0.8")]
    points, *_ = first.lines  # the others are the ends of intervals
    assert points.get_xdata()[1] == pytest.approx(0.08885, abs=1e-5)
    save_figure(drawn, tmp_path / "over.png")


def test_a_variant_without_a_task_is_not_averaged(tmp_path):
    finals = {("Boxing", "3-0"): [None, None]}
    study, folder, cells = games_study(tmp_path, finals)
    _, results = report_of(study, folder, cells)
    names = [label.get_text() for label in over_tasks(results).axes[0].get_yticklabels()]
    assert "der 3-0" not in names
    assert len(names) == 5
