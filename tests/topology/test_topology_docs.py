"""The documentation runs, block after block, as a reader would."""

import re
from pathlib import Path

import pytest

from mst_jax.topology import REGIMES

PAGE = Path(__file__).parents[2] / "docs" / "topology.md"


@pytest.mark.slow
def test_every_block_of_the_page_runs():
    text = PAGE.read_text(encoding="utf-8")
    namespace = {}
    blocks = list(re.finditer(r"```python\n(.*?)```", text, re.DOTALL))
    assert len(blocks) > 15
    for block in blocks:
        line = text[: block.start()].count("\n") + 1
        code = "\n" * line + block.group(1)  # so that a failure names the page's line
        exec(compile(code, str(PAGE), "exec"), namespace)


def test_one_s_own_regime_takes_less_than_forty_lines():
    text = PAGE.read_text(encoding="utf-8")
    code = re.search(r"## Write your own regime.*?```python\n(.*?)```", text, re.DOTALL).group(1)
    assert code.count("\n") < 40


def test_every_regime_is_described():
    """Fault C14: those of the papers too, by the names that agents use."""
    text = PAGE.read_text(encoding="utf-8")
    for name in REGIMES:
        assert f"`{name}" in text
