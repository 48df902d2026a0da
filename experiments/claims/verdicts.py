"""What numbers say about a claim; the only place where a verdict is made."""

from experiments.claims.claim import Claim
from experiments.claims.found import Found
from mst_jax.analysis import Estimate

REPRODUCED = "reproduced"
CONTRADICTED = "contradicted"
UNSUPPORTED = "not supported by these data"
NOT_RUN = "not run"
VERDICTS = (REPRODUCED, CONTRADICTED, UNSUPPORTED, NOT_RUN)
FEWEST_SEEDS = 5  # below, an interval is too narrow for a verdict

_OF_STUDIES = {"supported": REPRODUCED, "contradicted": CONTRADICTED}


def verdict_of(claim: Claim, found: Found | None) -> str:
    """One of `VERDICTS`.

    Reproduced: the interval lies on the claimed side of zero, and the number within the registered
    tolerance of the published one, if there is one. Contradicted: the interval lies on the other
    side, or wholly outside the tolerance. A claim that two things are the same has no side. A study
    that registered a rule of its own is judged by that. With fewer than five seeds nothing is.
    """
    if found is None:
        return NOT_RUN
    if found.verdict:
        return _OF_STUDIES.get(found.verdict, UNSUPPORTED)
    if 0 < found.seeds < FEWEST_SEEDS:
        return UNSUPPORTED
    side, near = _side(claim, found.estimate), _near(claim, found.estimate)
    if side < 0 or near < 0:
        return CONTRADICTED
    return REPRODUCED if side > 0 and near > 0 else UNSUPPORTED


def _side(claim: Claim, found: Estimate) -> int:
    """1 if the interval is on the claimed side, -1 if on the other, else 0."""
    if claim.expects == "same":
        return 1
    low, high = float(found.low) - claim.than, float(found.high) - claim.than
    if claim.expects == "less":
        low, high = -high, -low
    return 1 if low > 0 else -1 if high < 0 else 0


def _near(claim: Claim, found: Estimate) -> int:
    """1 if the number is near the published one, -1 if the interval is wholly elsewhere, else 0."""
    if claim.tolerance is None:
        return 1
    goal = claim.than if claim.published is None else claim.published
    if float(found.low) > goal + claim.tolerance or float(found.high) < goal - claim.tolerance:
        return -1
    return 1 if abs(float(found.value) - goal) <= claim.tolerance else 0
