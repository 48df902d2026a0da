"""Makes docs/claims.md, the ledger of claims, from committed results.

python -m experiments.claims
"""

from pathlib import Path

from absl import app, flags

from experiments.claims.ledger import COMMANDS, sections
from experiments.claims.page import page

ROOT = Path(__file__).parents[2]

_OUTPUT = flags.DEFINE_string("output", "docs/claims.md", "The page, within the repository.")


def main(argv: list[str]) -> None:
    """Writes the page and says what is new in it."""
    if len(argv) > 1:
        raise app.UsageError(f"what is {argv[1]!r}? the only flag is --output")
    if not (ROOT / "docs/results").is_dir():
        raise app.UsageError(
            f"{ROOT} has no docs/results: the ledger is made in a checkout, where results are"
        )
    path = ROOT / _OUTPUT.value
    before = path.read_text() if path.is_file() else ""
    text = page(sections(), COMMANDS, ROOT)
    path.write_text(text)
    print(f"{path}: {'unchanged' if text == before else 'written'}")


if __name__ == "__main__":
    app.run(main)
