"""Published mean returns of the Network Sparsity paper after 1 M frames, read off its figures.

Source: docs/specs/network-sparsity.md §1.5, §1.6 and §1.8; about 1 % of the axis in error.
"""

from collections.abc import Mapping
from typing import Any

STEPS = 500_000  # agent steps, of 2 frames each

_WIDTH = ("0.5x1", "1x1", "2x1", "3x1", "4x1", "5x1")
_DEPTH = ("2x1", "2x2", "2x3", "2x4")

# (task, agent) -> dense returns of _WIDTH, then sparse ones of its last three.
BY_WIDTH = {
    ("dog-walk", "sac"): ((899, 912, 924, 921, 920, 919), (928, 929, 931)),
    ("dog-trot", "sac"): ((660, 802, 791, 772, 766, 719), (843, 856, 882)),
    ("dog-run", "sac"): ((447, 523, 502, 495, 492, 490), (537, 571, 614)),
    ("humanoid-stand", "sac"): ((755, 815, 861, 888, 880, 880), (897, 882, 838)),
    ("humanoid-walk", "sac"): ((578, 642, 667, 648, 634, 629), (718, 733, 765)),
    ("humanoid-run", "sac"): ((165, 185, 200, 193, 182, 182), (217, 224, 228)),
    ("dog-walk", "ddpg"): ((746, 861, 883, 865, 852, 826), (890, 902, 911)),
    ("dog-trot", "ddpg"): ((413, 748, 737, 702, 639, 566), (765, 771, 790)),
    ("dog-run", "ddpg"): ((297, 403, 403, 396, 369, 336), (474, 504, 565)),
    ("humanoid-stand", "ddpg"): ((665, 763, 789, 829, 784, 747), (843, 861, 876)),
    ("humanoid-walk", "ddpg"): ((498, 530, 587, 572, 543, 521), (642, 694, 699)),
    ("humanoid-run", "ddpg"): ((138, 167, 176, 173, 169, 163), (193, 205, 227)),
}
# (task, agent) -> dense returns of _DEPTH, then sparse ones of its last three.
BY_DEPTH = {
    ("dog-walk", "sac"): ((924, 916, 881, 850), (925, 930, 932)),
    ("dog-trot", "sac"): ((792, 727, 645, 507), (810, 836, 851)),
    ("dog-run", "sac"): ((502, 412, 364, 345), (510, 483, 509)),
    ("humanoid-stand", "sac"): ((861, 790, 745, 658), (820, 806, 835)),
    ("humanoid-walk", "sac"): ((667, 612, 588, 609), (707, 733, 766)),
    ("humanoid-run", "sac"): ((200, 170, 169, 160), (190, 194, 212)),
    ("dog-walk", "ddpg"): ((883, 834, 725, 674), (876, 885, 901)),
    ("dog-trot", "ddpg"): ((737, 552, 511, 456), (693, 755, 715)),
    ("dog-run", "ddpg"): ((403, 357, 307, 261), (420, 420, 436)),
    ("humanoid-stand", "ddpg"): ((790, 679, 627, 561), (714, 711, 778)),
    ("humanoid-walk", "ddpg"): ((587, 562, 526, 482), (617, 639, 677)),
    ("humanoid-run", "ddpg"): ((177, 154, 149, 140), (183, 180, 173)),
}
# (task, agent, network) -> returns at sparsity 0, 0.1, ..., 0.9; None where the figure has none.
BY_SPARSITY = {
    ("dog-trot", "sac", "default"): (802, 793, 822, 788, 765, 751, 761, 726, 641, None),
    ("dog-trot", "sac", "large"): (719, 782, 820, 841, 844, 837, 858, 857, 866, 862),
    ("dog-run", "sac", "default"): (523, 516, 525, 533, 520, 509, 478, 448, 441, None),
    ("dog-run", "sac", "large"): (490, 473, 484, 498, 512, 533, 533, 565, 583, 571),
    ("humanoid-walk", "sac", "default"): (641, 648, 638, 637, 624, 652, 597, 591, 553, 546),
    ("humanoid-walk", "sac", "large"): (629, 660, 660, 688, None, 734, 771, 772, 762, 819),
    ("humanoid-run", "sac", "default"): (185, 185, 193, 191, 190, 189, 187, 176, 166, 152),
    ("humanoid-run", "sac", "large"): (182, 190, 204, 210, 209, 200, 200, 230, 270, 278),
    ("dog-trot", "ddpg", "default"): (733, 753, 745, 710, 743, 735, 648, 614, 577, None),
    ("dog-trot", "ddpg", "large"): (566, 602, 658, 699, 750, 733, 781, 719, 802, 740),
    ("dog-run", "ddpg", "default"): (403, 408, 438, 438, 430, 410, 386, 371, 316, None),
    ("dog-run", "ddpg", "large"): (336, 433, 436, 449, 467, 482, 483, 473, 495, 510),
    ("humanoid-walk", "ddpg", "default"): (588, 588, 560, 560, 548, 524, 552, 521, 500, 502),
    ("humanoid-walk", "ddpg", "large"): (521, 573, 594, 627, 622, 647, 643, 713, 697, 689),
    ("humanoid-run", "ddpg", "default"): (168, 166, 159, 159, 157, 156, 155, 152, 148, 143),
    ("humanoid-run", "ddpg", "large"): (163, 165, 163, 166, 171, 185, 189, 212, 207, 212),
}

# Task -> sparsity -> returns of Stream AC(lambda) at STREAM_WIDTHS (docs/specs/streaming.md §2).
STREAM_WIDTHS = (64, 128, 256, 512)
STREAM = {
    "gym:Walker2d-v4": {
        0.0: (2260.2, 2451.1, 2394.7, 2072.1),
        0.4: (2215.9, 2619.9, 3029.3, 2490.1),
        0.8: (758.6, 1642.2, 2433.5, 3114.6),
    },
    "gym:Ant-v4": {
        0.0: (3475.8, 3816.5, 3917.3, 3451.9),
        0.4: (3013.1, 3994.2, 4105.9, 4340.3),
        0.8: (1119.1, 2754.3, 3901.2, 4350.8),
    },
}


def published_streams(task: str) -> dict[tuple[int, float], float]:
    """(width, sparsity) -> published mean return of Stream AC(lambda); empty for other tasks."""
    return {
        (width, sparsity): value
        for sparsity, row in STREAM.get(task, {}).items()
        for width, value in zip(STREAM_WIDTHS, row, strict=True)
    }


def published_points(task: str, agent: str, labels: Mapping[str, Any]) -> float | None:
    """The published mean for a variant of a scaling study or the sparsity sweep, if there is one.

    Args:
        task: full name; only `dmc:` tasks match.
        agent: algorithm.
        labels: of the variant: `kind` and `network` (a size), or `network` and `sparsity`.
    """
    suite, _, name = task.partition(":")
    if suite != "dmc":
        return None
    if "sparsity" in labels:
        values = BY_SPARSITY.get((name, agent, str(labels["network"])))
        return None if values is None else values[round(10 * float(labels["sparsity"]))]
    for sizes, table in ((_WIDTH, BY_WIDTH), (_DEPTH, BY_DEPTH)):
        size = labels.get("network")
        if size not in sizes or (name, agent) not in table:
            continue
        dense, sparse = table[name, agent]
        if labels.get("kind") == "dense":
            return dense[sizes.index(size)]
        if size in sizes[-3:]:
            return sparse[sizes[-3:].index(size)]
    return None
