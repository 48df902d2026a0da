"""Makes the ledger of claims from committed results: python -m experiments.claims."""

from pathlib import Path

from experiments.claims.ledger import COMMANDS, sections
from experiments.claims.page import page
from experiments.cli import launch, one_line_errors
from experiments.inputs import define_path, require_output

ROOT = Path(__file__).parents[2]
OUTPUT = define_path("output", str(ROOT / "docs/claims.md"), "The page.")


def main(_: list[str]) -> None:
    """Writes the page and says whether it is another than before."""
    with one_line_errors():
        if not (ROOT / "docs/results").is_dir():
            raise ValueError(
                f"{ROOT} has no docs/results: the ledger is made in a checkout, which holds results"
            )
        require_output(OUTPUT.value, [".md"])
        made = page(sections(), COMMANDS, ROOT)
    known = OUTPUT.value.is_file() and OUTPUT.value.read_text(encoding="utf-8") == made
    OUTPUT.value.write_text(made, encoding="utf-8")
    print(f"{OUTPUT.value}: {'as it was' if known else 'written'}")


if __name__ == "__main__":
    launch(main)
