"""Text of users, such as names of recipes and tasks, in pictures."""


def plain(text: object) -> str:
    """Text that matplotlib shows letter by letter, wherever it is drawn.

    Between two dollar signs matplotlib would read mathematics, and fail where it is none; a label
    that begins with an underscore it would leave out of the legend.
    """
    shown = str(text).replace("$", r"\$")
    return f" {shown}" if shown.startswith("_") else shown
