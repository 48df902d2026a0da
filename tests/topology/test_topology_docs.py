"""The documentation runs, block after block, as a reader would."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "topology.md"


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


def test_every_regime_has_its_section():
    text = PAGE.read_text(encoding="utf-8")
    for name in (
        *("dense", "static", "set", "rigl", "snfs", "gradual_magnitude_pruning", "granet"),
        *("gradual_growth", "neuroplastic_expansion", "dense_then_rigl", "network_sparsity"),
    ):
        assert f"`{name}" in text
