"""What comments, docstrings and documents refer to exists: documents, sections, rules, links."""

import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("mst_jax", "experiments", "benchmarks", "tests", "docs", ".ci", ".github")
# What the notes that this code was written from are called outside the repository.
OUTSIDE = re.compile(
    r"(?<![\w/])(?:[Ss]pecs/[\w-]+\.md|shared/\w[\w./]*|DESIGN\b|[Ss]pecs §|MR\.Q specification)"
)
# A document, `§1.2` or `rule 3`; the latter two belong to the document named last before them.
REFERENCE = re.compile(
    r"(?P<document>(?<![\w/.])docs/[\w./-]+\.md)(?:`*,? \"(?P<heading>[^\"]+)\")?"
    r"|(?<!\d{4}, )§(?P<section>\d+(?:\.\d+)*)(?: \"(?P<title>[A-Z][^\"]+)\"| row (?P<row>\d+))?"
    r"|(?<=\.md )rule (?P<rule>\d+)"
)
LINK = re.compile(r"\]\(([^()\s]+)\)")


def dangling(root=ROOT):
    """Every reference below a folder that leads nowhere, one line each."""
    return [
        f"{path.relative_to(root)}: {problem}"
        for path in files(root)
        for problem in (
            *in_text(root, path, path.read_text(encoding="utf-8")),
            *(in_links(root, path) if path.suffix == ".md" else ()),
        )
    ]


def files(root):
    """Sources and documents, also those that git does not know yet."""
    found = [*root.glob("*.md"), root / "setup.py", root / "Makefile"]
    for folder in FOLDERS:
        for suffix in ("py", "md", "sh", "yml"):
            found += (root / folder).rglob(f"*.{suffix}")
    return sorted(path for path in found if path.is_file() and path != Path(__file__))


def in_text(root, path, text):
    """Problems of the references in one file's text."""
    if path.suffix == ".py":
        text = re.sub(r"\n\s*(?:# ?)?", " ", text)  # a reference may be wrapped
        yield from (f"{match[0]} is not in this repository" for match in OUTSIDE.finditer(text))
    document = None
    for match in REFERENCE.finditer(text):
        if match["document"]:
            document = root / match["document"]
            if not document.exists():
                yield f"{match['document']} does not exist"
            elif match["heading"] and match["heading"] not in headings(document):
                yield f"{match['document']} has no heading {match['heading']!r}"
            continue
        if path.suffix == ".md":
            named = re.search(r"([\w/-]+\.md)`? $", text[: match.start()])
            document = path.parent / named[1] if named else path
        if document is None:
            yield f"{match[0]} belongs to no document: name one before it"
        elif document.exists():
            yield from in_section(document, match)


def in_section(document, match):
    """Problems of one reference to a numbered place of a document."""
    name = document.name
    number = match["section"] or f"Rule {match['rule']}"
    text = sections(document).get(number)
    if text is None:
        yield f"{name} has no {'§' if match['section'] else ''}{number}"
    elif match["title"] and f"**{match['title']}" not in text:
        yield f"{name} §{number} says nothing of {match['title']!r}"
    elif match["row"] and f"\n| {match['row']} |" not in text:
        yield f"{name} §{number} has no row {match['row']}"


def in_links(root, path):
    """Problems of a document's relative links."""
    for target in LINK.findall(without_code(path.read_text(encoding="utf-8"))):
        if "://" in target or target.startswith("mailto:"):
            continue
        file, _, anchor = target.partition("#")
        linked = (path.parent / file).resolve() if file else path
        if not linked.exists() or not linked.is_relative_to(root.resolve()):
            yield f"link to {target}: there is no such file"
        elif anchor and anchor not in {slug(title) for title in headings(linked)}:
            yield f"link to {target}: there is no such heading"


@cache
def headings(document):
    """Titles of a document's headings, in order."""
    text = without_code(document.read_text(encoding="utf-8"))
    return re.findall(r"^#+ (.+)$", text, re.MULTILINE)


@cache
def sections(document):
    """Number of a section, or `Rule n` -> its text, up to the next heading of any level."""
    text = without_code(document.read_text(encoding="utf-8"))
    parts = re.split(r"^#+ ((?:Rule )?\d+(?:\.\d+)*)[.: ]", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def without_code(text):
    return re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)


def slug(title):
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def test_every_reference_resolves():
    assert dangling() == []


DOCUMENT = "docs/" + "specs/some.md"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (f'"""{DOCUMENT} §1.2."""', None),
        (f'"""{DOCUMENT} §1.2, §2."""', None),
        (f'"""{DOCUMENT}\n    §1.2 is wrapped."""', None),
        (f'"""{DOCUMENT}."""\n# §2 is of the document above', None),
        (f'"""{DOCUMENT} §2 "Reset"; {DOCUMENT} §2 row 3; {DOCUMENT} "Two words"."""', None),
        (f'"""{DOCUMENT} rule 1."""', None),
        ('"""Evci et al. 2020, §7."""', None),
        (f'"""{DOCUMENT} §1.3."""', "some.md has no §1.3"),
        (f'"""{DOCUMENT} §1.2, §3."""', "some.md has no §3"),
        (f'"""{DOCUMENT}."""\n# see §4', "some.md has no §4"),
        (f'"""{DOCUMENT} §2 "Norm"."""', "some.md §2 says nothing of 'Norm'"),
        (f'"""{DOCUMENT} §2 row 4."""', "some.md §2 has no row 4"),
        (f'"""{DOCUMENT} "Three words"."""', f"{DOCUMENT} has no heading 'Three words'"),
        (f'"""{DOCUMENT} rule 2."""', "some.md has no Rule 2"),
        ('"""docs' + '/other.md."""', "docs" + "/other.md does not exist"),
        ("# §2", "§2 belongs to no document: name one before it"),
        ("# shared" + "/notes.md", "shared" + "/notes.md is not in this repository"),
        ("# DESIGN" + " rule 3", "DESIGN is not in this repository"),
    ],
)
def test_a_dangling_reference_is_found(tmp_path, text, problem):
    write_example(tmp_path, "mst_jax/module.py", text)
    expected = [] if problem is None else [f"mst_jax/module.py: {problem}"]
    assert dangling(tmp_path) == expected


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[here](specs/some.md), [there](specs/some.md#11-words-code)", None),
        ("[self](#one-two)\n\n# One, two", None),
        ("```\n[not a link](nowhere.md)\n```", None),
        ("[away](https://example.org/x.md)", None),
        ("[gone](specs/gone.md)", "link to specs/gone.md: there is no such file"),
        ("[out](../../x.md)", "link to ../../x.md: there is no such file"),
        ("[gone](specs/some.md#x)", "link to specs/some.md#x: there is no such heading"),
    ],
)
def test_a_dangling_link_is_found(tmp_path, text, problem):
    (tmp_path.parent / "x.md").touch()
    write_example(tmp_path, "docs/page.md", text)
    expected = [] if problem is None else [f"docs/page.md: {problem}"]
    assert dangling(tmp_path) == expected


def write_example(root, name, text):
    """A file with some text, and the document that it refers to."""
    document = "# Some\n\n## 1. A\n\n### 1.1 Words `code`\n\n### 1.2 B\n\n## 2. C\n\n**Reset.** x\n"
    table = "\n| row | |\n|---|---|\n| 3 | x |\n\n### Rule 1: one\n\n## Two words\n"
    for path, content in ((root / DOCUMENT, document + table), (root / name, text)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
