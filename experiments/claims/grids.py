"""Claims cell by cell, made of published tables that are data already."""

from collections.abc import Iterator, Sequence

from experiments.claims.claim import Arm, Claim, Cost, Evidence
from experiments.studies import published, streaming
from experiments.studies.modules import MST_VS_UNIFORM, RIVALS
from experiments.studies.pixels import TASKS as PIXEL_TASKS
from experiments.studies.published_atari import CHANGES

# Registered 2026-11-27: runs of one setting in the paper differ by up to 50 between figures
# (docs/specs/network-sparsity.md §1.8), which is more than the figures are read off by.
TOLERANCE = 50.0
GAME_TOLERANCE = 20.0  # percent of the default network's return
STEPS = published.STEPS
SIMULATOR = "simulator: our MuJoCo is newer"
SMALL = MST_VS_UNIFORM.scales["small"]
STREAMS_DIFFER = "simulator; SparseInit independent of the mask is our reading"
PIXELS = {  # docs/specs/drqv2.md §2: returns of critics of width 512, 1024, 2048, 4096
    "dmc_pixels:quadruped-run": {
        0.0: (443.1, 560.8, 607.9, 643.1),
        0.4: (430.2, 570.2, 708.4, 734.6),
        0.8: (451.6, 490.0, 717.5, 818.4),
    },
    "dmc_pixels:hopper-hop": {
        0.0: (247.3, 278.9, 252.3, 256.3),
        0.4: (213.1, 288.1, 293.2, 294.0),
        0.8: (185.1, 231.8, 301.2, 324.8),
    },
}
PIXEL_WIDTHS = (512, 1024, 2048, 4096)


def rival_claims() -> Iterator[Claim]:
    """MST beside its rivals on the task and at the length that benchmarks/gpu/run.sh trains."""
    (task,), steps = SMALL.tasks, SMALL.steps
    differs = f"another task, {steps:,} steps: the direction at most"
    rivals = [recipe for recipe in RIVALS if recipe != "mst"]
    for rival in rivals:
        yield Claim(
            id=f"mst-small-{rival}",
            place="conclusion 2",
            text=f"MR.Q {task}: MST - {rival}",
            comparisons=len(rivals),
            command="mst_small",
            seeds=8,
            differs=differs,
            evidence=(
                Evidence(
                    "difference",
                    "mst_vs_uniform",
                    "mrq",
                    (task,),
                    steps,
                    {"recipe": "mst", "network": "1x1"},
                    {"recipe": rival, "network": "1x1"},
                    differs=differs,
                ),
            ),
        )


def width_claims() -> Iterator[Claim]:
    """Figure 15: what the widest network does on each task."""
    for (task, agent), (dense, sparse) in published.BY_WIDTH.items():
        yield from _sizes("width", "Fig. 15", task, agent, ("2x1", "5x1"), dense[2::3], sparse[-1])


def depth_claims() -> Iterator[Claim]:
    """Figure 16: what the deepest network does on each task, at twice the default width."""
    for (task, agent), (dense, sparse) in published.BY_DEPTH.items():
        yield from _sizes("depth", "Fig. 16", task, agent, ("2x1", "2x4"), dense[::3], sparse[-1])


def _sizes(
    way: str,
    place: str,
    task: str,
    agent: str,
    sizes: tuple[str, str],
    dense: Sequence[float],
    sparse: float,
) -> Iterator[Claim]:
    """The three comparisons of the largest network of one way to grow."""
    best, largest = ({"kind": "dense", "network": size} for size in sizes)
    pruned: Arm = {"kind": "sparse", "network": sizes[1]}
    name = f"{agent.upper()} {task}"
    rows: tuple[tuple[str, str, Arm, Arm, float], ...] = (
        ("dense", f"dense {sizes[1]} - dense 2x1", largest, best, dense[1] - dense[0]),
        ("nominal", f"sparse {sizes[1]} - dense {sizes[1]}", pruned, largest, sparse - dense[1]),
        ("kept", f"sparse {sizes[1]} - dense 2x1", pruned, best, sparse - dense[0]),
    )
    for key, text, x, y, number in rows:
        yield Claim(
            id=f"ns-{way}-{key}-{agent}-{task}",
            place=place,
            text=f"{name}: {text}",
            # Some published cells are against the paper's own claim; a row claims what was shown.
            expects="more" if number > 0 else "less",
            published=number,
            digitised=True,
            tolerance=TOLERANCE,
            command=f"scaling_{way}",
            seeds=8,
            differs=SIMULATOR,
            evidence=(
                Evidence(
                    "difference",
                    f"scaling_{way}",
                    agent,
                    (f"dmc:{task}",),
                    STEPS,
                    x,
                    y,
                    differs=SIMULATOR,
                ),
            ),
        )


def sweep_claims() -> Iterator[Claim]:
    """Figure 3: what a sparsity of 0.8 does to the default and to the large network."""
    for (task, agent, network), returns in published.BY_SPARSITY.items():
        at, none = returns[8], returns[0]
        if at is None or none is None:
            continue
        size = {"default": "1x1", "large": "5x1"}[network]
        yield Claim(
            id=f"ns-sweep-{network}-{agent}-{task}",
            place="Fig. 3",
            text=f"{agent.upper()} {task}, {network} network ({size}): S = 0.8 - dense",
            expects="more" if at > none else "less",
            published=at - none,
            digitised=True,
            tolerance=TOLERANCE,
            command="sparsity_sweep",
            seeds=8,
            differs=SIMULATOR,
            evidence=(
                Evidence(
                    "difference",
                    "sparsity_sweep",
                    agent,
                    (f"dmc:{task}",),
                    STEPS,
                    {"network": network, "sparsity": 0.8},
                    {"network": network, "sparsity": 0.0},
                    differs=SIMULATOR,
                ),
            ),
        )


def pixel_claims() -> Iterator[Claim]:
    """The widest critic of DrQ-v2, and what growing does."""
    for task in PIXEL_TASKS:
        for sparsity, returns in PIXELS[task].items():
            own: Arm = {"width": 4096, "sparsity": sparsity}
            rows = [("1024", {"width": 1024, "sparsity": sparsity}, returns[3] - returns[1])]
            if sparsity:
                dense = PIXELS[task][0.0][3]
                rows.append(("dense", {"width": 4096, "sparsity": 0.0}, returns[3] - dense))
            for other, y, number in rows:
                against = "the same at 1024" if other == "1024" else "dense 4096"
                yield Claim(
                    id=f"ns-pixels-{other}-{sparsity:g}-{task.partition(':')[2]}",
                    place="table of section 5 (visual)",
                    text=f"DrQ-v2 {task}: width 4096 at S = {sparsity:g} - {against}",
                    expects="more" if number > 0 else "less",
                    published=number,
                    tolerance=TOLERANCE,
                    command="visual_width",
                    seeds=5,
                    differs=SIMULATOR,
                    evidence=(
                        Evidence(
                            "difference",
                            "visual_width",
                            "drqv2",
                            (task,),
                            1_000_000,
                            own,
                            y,
                            differs=SIMULATOR,
                        ),
                    ),
                )


def game_claims() -> Iterator[Claim]:
    """Figure of Atari-100k: the network three times as wide, in percent of the default's return."""
    for game, numbers in CHANGES.items():
        for sparsity, number in zip((0.0, 0.4, 0.8), numbers, strict=True):
            yield Claim(
                id=f"ns-atari-{sparsity:g}-{game}",
                place="figure of section 5 (Atari-100k)",
                text=f"DER {game}: width 3 at S = {sparsity:g}, percent above width 1, dense",
                expects="more" if number > 0 else "less",
                published=float(number),
                digitised=True,
                tolerance=GAME_TOLERANCE,
                command="atari_width",
                seeds=5,
                differs="seeds, pruned layers: not published",
                evidence=(
                    Evidence(
                        "change",
                        "atari_width",
                        "der",
                        (f"atari:{game}",),
                        100_000,
                        {"width": 3, "sparsity": sparsity},
                        {"width": 1, "sparsity": 0.0},
                        differs="seeds, pruned layers: not published",
                    ),
                ),
            )


def stream_claims() -> Iterator[Claim]:
    """Figure 12: the return of each width and sparsity of Stream AC(lambda)."""
    sizes = dict(zip(published.STREAM_WIDTHS, ("0.5x1", "1x1", "2x1", "4x1"), strict=True))
    for task in published.STREAM:
        name, registered = task.partition(":")[2], task == streaming.TASK
        for (width, sparsity), number in published.published_streams(task).items():
            command = "streaming_width" if registered else "ant"
            yield Claim(
                id=f"ns-stream-{name}-{width}-{sparsity:g}",
                place="Fig. 12",
                text=f"{name}: return at width {width}, S = {sparsity:g}",
                expects="same",
                published=number,
                digitised=True,
                tolerance=streaming.GATE,
                command=command if (width, sparsity) in streaming.CELLS else "streaming_cells",
                seeds=5,
                differs=STREAMS_DIFFER,
                evidence=tuple(
                    Evidence(
                        "registered",
                        study,
                        tasks=(task,),
                        x={"width": width, "sparsity": sparsity},
                        differs=STREAMS_DIFFER,
                    )
                    for study in ("streaming", "streaming_width", "streaming_cells")
                ),
                cost=(Cost(f"stream_ac {sizes[width]} {task}", streaming.STEPS, 5),),
            )
