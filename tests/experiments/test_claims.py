"""The ledger: the committed page is what its command makes, verdicts follow from numbers."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from experiments.claims.claim import Claim, Cost, Evidence, read_claims
from experiments.claims.costs import costs_of, hours
from experiments.claims.found import Found, find
from experiments.claims.ledger import COMMANDS, sections
from experiments.claims.page import page
from experiments.claims.verdicts import VERDICTS, verdict_of
from experiments.studies.published import BY_DEPTH, BY_SPARSITY, BY_WIDTH
from experiments.studies.published_atari import CHANGES
from mst_jax.analysis import Estimate

ROOT = Path(__file__).parents[2]


def test_the_committed_page_is_what_the_command_makes():
    made = page(sections(), COMMANDS, ROOT)
    assert made == (ROOT / "docs/claims.md").read_text(), "python -m experiments.claims"


def test_every_cell_of_the_published_tables_has_its_rows():
    claims = [claim for section in sections().values() for claim in section]
    names = {claim.id for claim in claims}
    for task, agent in BY_WIDTH:
        assert {f"ns-width-{key}-{agent}-{task}" for key in ("dense", "nominal", "kept")} <= names
    for task, agent in BY_DEPTH:
        assert {f"ns-depth-{key}-{agent}-{task}" for key in ("dense", "nominal", "kept")} <= names
    assert {f"ns-sweep-{n}-{a}-{t}" for t, a, n in BY_SPARSITY} <= names
    assert {f"ns-atari-{s}-{game}" for game in CHANGES for s in ("0", "0.4", "0.8")} <= names
    (width,) = (claim for claim in claims if claim.id == "ns-width-kept-sac-dog-run")
    assert (width.published, width.expects, width.digitised) == (614 - 502, "more", True)
    (worse,) = (claim for claim in claims if claim.id == "ns-width-nominal-sac-humanoid-stand")
    assert (worse.published, worse.expects) == (838 - 880, "less"), "the row says what was shown"


def found(value, low, high, seeds=8, verdict=""):
    return Found(Estimate(*map(np.asarray, (value, low, high))), seeds, 0.95, "x", "", verdict)


MORE = {"published": 100.0, "tolerance": 50.0}
LESS = {"published": -100.0, "tolerance": 50.0, "expects": "less"}
SAME = {"published": 10.0, "tolerance": 30.0, "expects": "same"}


@pytest.mark.parametrize(
    ("claim", "numbers", "verdict"),
    [
        (MORE, (90, 20, 160), "reproduced"),
        (MORE, (90, -5, 160), "not supported by these data"),  # zero is in the interval
        (MORE, (40, 10, 70), "not supported by these data"),  # 60 from the published number
        (MORE, (20, 5, 40), "contradicted"),  # wholly below 50
        (MORE, (-40, -90, -5), "contradicted"),
        (MORE, (300, 200, 400), "contradicted"),  # wholly above 150
        (MORE, None, "not run"),
        (LESS, (-90, -160, -20), "reproduced"),
        (LESS, (30, 10, 60), "contradicted"),
        (SAME, (-5, -40, 35), "reproduced"),
        (SAME, (45, 20, 70), "not supported by these data"),
        (SAME, (60, 45, 70), "contradicted"),
        ({}, (1, 0.5, 2), "reproduced"),  # a direction alone
        ({}, (1, -0.5, 2), "not supported by these data"),
        ({"than": -3.0}, (-1, -2, 1), "reproduced"),
        ({"than": -3.0}, (-5, -7, -4), "contradicted"),
    ],
)
def test_a_verdict_follows_from_numbers(claim, numbers, verdict):
    assert verdict in VERDICTS
    row = Claim("name", "place", "text", **claim)
    row.validate()
    assert verdict_of(row, None if numbers is None else found(*numbers)) == verdict


def test_few_seeds_decide_nothing_and_a_registered_rule_decides_itself():
    row = Claim("name", "place", "text", **MORE)
    assert verdict_of(row, found(90, 80, 95, seeds=4)) == "not supported by these data"
    assert verdict_of(row, found(90, 90, 90, seeds=0)) == "reproduced", "counted, not trained"
    assert verdict_of(row, found(90, 20, 160, verdict="undecided")) == "not supported by these data"
    assert verdict_of(row, found(0, -1, 1, verdict="supported")) == "reproduced"


def write_results(folder, returns, steps=100):
    """A results.csv with a row for each seed of each variant at a step, and one before it."""
    folder.mkdir(parents=True)
    with (folder / "results.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["task", "agent", "seed", "step", "return", "label.recipe"])
        for recipe, values in returns.items():
            for seed, value in enumerate(values):
                writer.writerow(["dmc:x", "sac", seed, steps // 2, 0.0, recipe])
                writer.writerow(["dmc:x", "sac", seed, steps, value, recipe])


EVIDENCE = Evidence("difference", "study", "sac", ("dmc:x",), 100, {"recipe": "a"}, {"recipe": "b"})


def test_results_of_a_gpu_enter_by_themselves_and_count_first(tmp_path):
    claim = Claim("name", "place", "text", evidence=(EVIDENCE,))
    assert find(claim, tmp_path) is None
    write_results(tmp_path / "docs/results/study", {"a": [3, 4, 5], "b": [1, 1, 1]})
    ours = find(claim, tmp_path)
    assert (float(ours.estimate.value), ours.seeds) == (3.0, 3)
    assert ours.where == "docs/results/study/results.csv"
    own = {"a": [10, "", 20, "nan"], "b": [1, 1, 1, 1, 1]}
    write_results(tmp_path / "benchmarks/results/gpu_h100/study", own)
    theirs = find(claim, tmp_path)
    assert float(theirs.estimate.value) == 30 / 4 - 1, "a seed that diverged counts as 0"
    assert (theirs.seeds, theirs.where) == (4, "benchmarks/results/gpu_h100/study/results.csv")
    # A run of another length, or without one side, is no evidence for this claim.
    write_results(tmp_path / "benchmarks/results/gpu_z/study", {"a": [9, 9], "c": [0, 0]})
    assert find(claim, tmp_path).where == theirs.where
    longer = Claim("n", "p", "t", evidence=(Evidence(**{**vars(EVIDENCE), "steps": 200}),))
    assert find(longer, tmp_path) is None
    percent = Claim("n", "p", "t", evidence=(Evidence(**{**vars(EVIDENCE), "kind": "change"}),))
    assert float(find(percent, tmp_path).estimate.value) == pytest.approx(650.0)


def test_a_claim_about_two_agents_takes_both(tmp_path):
    write_results(tmp_path / "docs/results/study", {"a": [3, 5], "b": [1, 1]})
    both = Evidence(**{**vars(EVIDENCE), "agent": "sac ddpg"})
    claim = Claim("name", "place", "text", evidence=(both,))
    assert find(claim, tmp_path) is None, "one agent's rows are half of the claim"
    whole = tmp_path / "benchmarks/results/gpu_x/study"
    write_results(whole, {"a": [3, 5], "b": [1, 1]})
    with (whole / "results.csv").open("a", newline="") as file:
        csv.writer(file).writerows(
            ["dmc:x", "ddpg", 0, 100, value, recipe] for recipe, value in (("a", 9), ("b", 0))
        )
    assert float(find(claim, tmp_path).estimate.value) == (4 + 9) / 2 - (1 + 0) / 2


def write_streams(folder, task, steps):
    """A report of streaming_width with two seeds of every cell, 10 to 40 by cell."""
    folder.mkdir(parents=True)
    rows = [
        f"| {width} | {sparsity} | 2 | - | - | - | {value}, {value} |"
        for width, sparsity, value in (
            (128, 0.0, 10),
            (512, 0.0, 5),
            (128, 0.8, 20),
            (512, 0.8, 40),
        )
    ]
    head = (
        f"| {task} stream_ac: width | sparsity | seeds | mean | IQM | published mean | every seed |"
    )
    body = "\n".join([head, "|---|---|---|---|---|---|---|", *rows])
    text = f"{steps:,} agent steps a seed\n\n## The registered outcome\n\n{body}\n\n## Next\n"
    (folder / "report.md").write_text(text)


def test_a_report_of_streams_answers_for_its_task_and_length_only(tmp_path):
    rule = Evidence("registered", "streaming_width", tasks=("gym:Ant-v4",))
    cell = Evidence(**{**vars(rule), "x": {"width": 512, "sparsity": 0.8}})
    claims = [Claim("name", "place", "text", evidence=(one,)) for one in (rule, cell)]
    gpu = tmp_path / "benchmarks/results"
    write_streams(gpu / "gpu_short/streaming_width", "gym:Ant-v4", 500_000)
    write_streams(gpu / "gpu_other/streaming_width", "gym:Walker2d-v4", 2_000_000)
    assert [find(claim, tmp_path) for claim in claims] == [None, None]
    write_streams(gpu / "gpu_ant/streaming_width", "gym:Ant-v4", 2_000_000)
    interaction, one = (find(claim, tmp_path) for claim in claims)
    assert float(interaction.estimate.value) == (40 - 20) - (5 - 10)
    assert interaction.verdict == "", "the rule was registered for Walker2d"
    assert (float(one.estimate.value), one.seeds) == (40.0, 2)


def test_every_row_has_a_place_that_results_enter_from():
    claims = [claim for section in sections().values() for claim in section]
    without = [claim.id for claim in claims if not claim.evidence]
    assert without == ["mst-plasticity", "mst-lesson-1", "tar-width", "rlx2-flops"]
    for claim in claims:
        for evidence in claim.evidence:
            if evidence.kind == "metric" and evidence.y:
                sides = [str(arm["runs"]).removesuffix("/*/*") for arm in (evidence.x, evidence.y)]
                folder = sides[0].replace("gpu*", "gpu").rpartition("/")[0].split("/")[:4]
                assert f"--logdir={'/'.join(folder)}/" in COMMANDS[claim.command], claim.id
                assert len({side.rpartition("/")[0] for side in sides}) == 1, "beside each other"


def test_no_two_commands_train_into_one_folder():
    words = [word for command in COMMANDS.values() for word in command.split()]
    folders = [word for word in words if word.startswith("--logdir=benchmarks/")]
    assert folders
    assert sorted(folders) == sorted(set(folders))


def test_diagnostics_are_read_from_run_folders(tmp_path):
    for kind, values in {"sparse": (240, 250), "dense": (120, 130)}.items():
        for seed, value in enumerate(values):
            folder = tmp_path / f"runs/{kind}-seeds0-1/seed_{seed}"
            folder.mkdir(parents=True)
            rows = [
                {"kind": "train", "step": 50, "seed": seed, "srank": 1},
                {"kind": "diagnostics", "step": 25, "seed": seed, "srank": 2},
                {"kind": "diagnostics", "step": 50, "seed": seed, "srank": value},
            ]
            (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)))
    evidence = Evidence(
        "metric", steps=50, x={"runs": "runs/sparse-*"}, y={"runs": "runs/dense-*"}, metric="srank"
    )
    claim = Claim("name", "place", "text", evidence=(evidence,))
    assert float(find(claim, tmp_path).estimate.value) == 120.0


def test_scores_are_read_from_a_benchmarks_record(tmp_path):
    x, y = ({"file": "scores.json", "of": name} for name in ("sparse", "dense"))
    claim = Claim("name", "place", "text", evidence=(Evidence("scores", x=x, y=y),))
    assert find(claim, tmp_path) is None
    record = {"results": {"sparse": [6.0, 7.0, 8.0], "dense": [5.0, 5.5]}}
    (tmp_path / "scores.json").write_text(json.dumps(record))
    ours = find(claim, tmp_path)
    assert (float(ours.estimate.value), ours.seeds, ours.where) == (1.75, 2, "scores.json")


def test_costs_are_of_measured_rates(tmp_path):
    folder = tmp_path / "benchmarks/results"
    folder.mkdir(parents=True)
    write_rates(folder / "rates_cpu.json", {"sac 1x1": 20.0, "sac 5x1": 1.0})
    write_rates(folder / "rates_streaming_cpu.json", {"sac 1x1": 10.0})
    small, large = Cost("sac 1x1", steps=36_000, runs=2), Cost("sac 5x1", steps=7_200, runs=8)
    assert hours((small,), tmp_path) == 2.0
    assert hours((small, large), tmp_path) == 18.0
    assert hours((), tmp_path) is None
    with pytest.raises(ValueError, match=r"no rate of 'sac 9x9': add it to benchmarks\.rates"):
        hours((Cost("sac 9x9", 1, 1),), tmp_path)


def write_rates(path, rates):
    rows = {network: {"steps_per_second": rate} for network, rate in rates.items()}
    path.write_text(json.dumps({"results": {"rates": rows}}))


def test_a_streaming_claim_costs_its_environment_s_time():
    for claim in sections()["Network Sparsity, streaming"]:
        tasks = {task for evidence in claim.evidence for task in evidence.tasks}
        assert {cost.network.split()[2] for cost in claim.cost} == tasks


def test_costs_follow_from_the_variants_of_a_study():
    claims = {claim.id: claim for section in sections().values() for claim in section}
    kept = claims["ns-width-kept-ddpg-dog-run"]  # sparse 5x1 - dense 2x1 on one task
    assert costs_of(kept) == (Cost("ddpg 5x1", 500_000, 8), Cost("ddpg 2x1", 500_000, 8))
    norm = claims["mst-encoder-norm"]  # of two tasks, in a study that leaves the size alone
    assert costs_of(norm) == (Cost("mrq 1x1", 500_000, 16),) * 2
    game = claims["ns-atari-0.8-Boxing"]
    assert costs_of(game) == (Cost("der 3x1", 100_000, 5), Cost("der 1x1", 100_000, 5))
    assert costs_of(claims["tar-width"]) == claims["tar-width"].cost, (
        "what a claim says comes first"
    )


def test_what_was_not_run_says_what_it_costs():
    claims = [claim for section in sections().values() for claim in section]
    left = [claim for claim in claims if find(claim, ROOT) is None]
    without = [claim.id for claim in left if hours(costs_of(claim), ROOT) is None]
    assert without == ["rlx2-flops"], "arithmetic at sparsities that its abstract does not say"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('expect = "less"', "there is no 'expect': did you mean expects"),
        ('expects = "lower"', "expects='lower'"),
        ("published = 3.0", "needs a registered tolerance"),
        ('[[claim.evidence]]\nkind = "diff"', "kind='diff'"),
    ],
)
def test_a_row_that_cannot_be_is_refused_in_one_line(tmp_path, text, words):
    path = tmp_path / "claims.toml"
    path.write_text(f'[[claim]]\nid = "a"\nplace = "b"\ntext = "c"\n{text}\n')
    with pytest.raises(ValueError, match=words) as error:
        read_claims(path)
    assert "\n" not in str(error.value)


def test_names_are_unique_and_commands_known():
    row = Claim("name", "place", "text", command="nothing")
    with pytest.raises(ValueError, match="two claims are called 'name'"):
        page({"a": [row], "b": [row]}, COMMANDS, ROOT)
    with pytest.raises(ValueError, match="there is no command 'nothing'"):
        page({"a": [row]}, COMMANDS, ROOT)
