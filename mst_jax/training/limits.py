"""How much may go wrong with the environments of a run before it stops."""

from mst_jax.training.session import Session


def problem_of(session: Session) -> str | None:
    """Why the runs of a program must stop, in one line; None while they can go on.

    They can go on until environments cannot be stepped any more, or one run's have lost more steps
    than its settings allow.
    """
    failure = session.driver.failure or session.evaluator.failure
    if failure:
        return failure
    errors = session.driver.errors()
    for member in session.members:
        lost, limit = int(errors[member.rows].sum()), member.settings.max_environment_errors
        if lost > limit:
            return (
                f"environments failed {lost} times, more than max_environment_errors={limit} "
                "(which may be changed when the run is resumed)"
            )
    return None
