"""Files that are there whole or not at all, also after the machine lost its power."""

import os
from pathlib import Path

PARTIAL = ".partial"  # suffix of what is being written


def replace_text(path: Path, text: str) -> None:
    """Writes a file beside, and puts it in place of the old one once it is on the disk."""
    partial = path.with_name(path.name + PARTIAL)
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Waits until a file's content, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Waits until everything in a folder is on the disk, its own name in its parent apart."""
    for path in folder.rglob("*"):
        sync(path)
    sync(folder)
