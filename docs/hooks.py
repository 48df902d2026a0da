"""What mkdocs does beside building pages: links that leave docs/ lead to copies within the site."""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
COPIES = "repository"  # folder of the site
LINK = re.compile(r"(\]\()((?:\.\./)+[^)#]+)")


def on_files(files: Files, *, config: Any) -> Files:
    """Adds every file outside docs/ that a page links to."""
    for page in list(files.documentation_pages()):
        for _, target in LINK.findall(page.content_string):
            if (path := _outside(page.src_uri, target)) and (ROOT / path).is_file():
                uri = f"{COPIES}/{path}"
                if files.get_file_from_path(uri) is None:
                    files.append(File.generated(config, uri, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Files) -> str:
    """Points links to them at the copies."""

    def replaced(match: re.Match) -> str:
        path = _outside(page.file.src_uri, match[2])
        if path is None:
            return match[0]
        copy = posixpath.relpath(f"{COPIES}/{path}", posixpath.dirname(page.file.src_uri) or ".")
        return match[1] + copy

    return LINK.sub(replaced, markdown)


def _outside(page: str, target: str) -> str | None:
    """A link's target as a path from the repository's root if it is outside docs/, else None."""
    path = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page), target))
    return None if path.startswith(("docs/", "../")) else path
