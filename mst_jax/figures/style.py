"""What all pictures have in common: colours, how the text of users is shown, how they are saved."""

from pathlib import Path

from matplotlib.figure import Figure

# Okabe and Ito's palette: distinguishable with colour-vision deficiency and in print.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DOTS_PER_INCH = 150


def plain(text: object) -> str:
    """Text that matplotlib shows letter by letter, wherever it is drawn.

    Between two dollar signs matplotlib would read mathematics, and fail where it is none; a label
    that begins with an underscore it would leave out of the legend.
    """
    shown = str(text).replace("$", r"\$")
    return f" {shown}" if shown.startswith("_") else shown


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a figure; the file's ending says as what."""
    figure.savefig(path, dpi=DOTS_PER_INCH)
