"""The page of a run: self-contained, and shown by a real browser without an error."""

import re
import shutil
import subprocess

import pytest

from mst_jax.figures import write_report
from mst_jax.figures.page import Picture, make_page
from mst_jax.topology import TextTable

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
# Added to a copy of the page; writes what the browser made of it into the document.
PROBE = """<script>addEventListener("load", () => {
  const broken = [...document.images].filter(i => !i.complete || i.naturalWidth < 100).length;
  document.body.dataset.seen = `${document.images.length} images, ${broken} broken, ` +
    `${document.querySelectorAll("table tr").length > 20}, ${document.compatMode}`;
});</script>"""


def shown(page, folder):
    """The document after a headless browser has loaded it, and the browser's console."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip("no Chromium or Chrome on this machine")
    copy = folder / "probed.html"
    copy.write_text(page.replace("</body>", PROBE + "</body>"), encoding="utf-8")
    result = subprocess.run(
        [
            *(browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
            *(f"--user-data-dir={folder / 'profile'}", "--host-resolver-rules=MAP * ~NOTFOUND"),
            *("--enable-logging=stderr", "--timeout=60000", "--dump-dom", copy.as_uri()),
        ],
        capture_output=True,
        text=True,
        timeout=300,
    )
    console = [line for line in result.stderr.splitlines() if "CONSOLE" in line]
    return result.stdout, console


@pytest.fixture(scope="module")
def report(finished_run, tmp_path_factory):
    return write_report(finished_run, tmp_path_factory.mktemp("report"), seed=1)


def test_a_run_s_page_holds_every_picture_and_needs_no_network(report):
    names = [picture.path.stem for picture in report.pictures]
    assert names[:8] == [
        *("returns", "masks", "degrees", "density", "churn", "dead", "survival", "age")
    ]
    page = report.page.read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == len(names)
    assert not re.search(r'(?:src|href)="(?!data:)', page)
    assert "Layers of seed 1 at step 120" in page
    assert "critic/q1/trunk/block_1/expand" in page
    for title, why in report.absent.items():
        assert title in page
        assert why
    assert list(report.absent)[-1] == "Gradient covariance, early and late"


def test_a_real_browser_shows_the_page(report, tmp_path):
    page = report.page.read_text(encoding="utf-8")
    document, console = shown(page, tmp_path)
    seen = re.search(r'data-seen="([^"]*)"', document).group(1)
    assert seen == f"{len(report.pictures)} images, 0 broken, true, CSS1Compat"
    assert console == []


def test_a_browser_would_notice_a_broken_image(tmp_path):
    """The test above can fail: a picture that is none is counted and a script error is heard."""
    (tmp_path / "no.png").write_bytes(b"not a picture")
    table = TextTable(("name", "value"), [("<script>", "a & b")])
    page = make_page("title", {"Table": table}, [Picture("No", "text", tmp_path / "no.png")], {})
    assert "<script>" not in page
    bad = page.replace("</body>", "<script>undefinedName()</script></body>")
    document, console = shown(bad, tmp_path)
    assert "1 images, 1 broken" in document
    assert any("undefinedName" in line for line in console)
