"""Repacks wheels without what training never reads: python -m benchmarks.gpu.slim_wheels FROM TO.

dm_control and mujoco carry models, viewers and tests that fill most of their wheels. The results
install as the originals do; their RECORD lists what is left.
"""

import sys
import zipfile
from fnmatch import fnmatch
from pathlib import Path

# By distribution, patterns of paths inside the wheel; a star matches slashes too.
UNUSED = {
    "dm_control": (
        *(
            f"dm_control/{folder}/*"
            for folder in ("blender", "entities", "locomotion", "manipulation", "viewer")
        ),
        "dm_control/third_party/*",
        "dm_control/mujoco/testing/*",
        "dm_control/suite/all_domains.png",
        "*_test.py",
    ),
    "mujoco": (
        "mujoco/experimental/*",
        "mujoco/viewer*",
        "mujoco/_render_filament.*",
        "mujoco/_simulate.*",
    ),
    "mujoco_mjx": ("mujoco/mjx/test_data/*", "*_test.py"),
}


def main(arguments: list[str]) -> None:
    """Repacks every wheel of a folder into another one and prints the sizes."""
    if len(arguments) != 2:
        sys.exit("error: name the folder of wheels and the one to write")
    source, target = Path(arguments[0]), Path(arguments[1])
    wheels = sorted(source.glob("*.whl"))
    if not wheels:
        sys.exit(f"error: there are no wheels in {source}")
    target.mkdir(parents=True, exist_ok=True)
    for wheel in wheels:
        slim(wheel, target / wheel.name)
        before, after = (path.stat().st_size / 2**20 for path in (wheel, target / wheel.name))
        print(f"{before:6.1f} -> {after:6.1f} MiB  {wheel.name}")
    total = sum(path.stat().st_size for path in target.glob("*.whl")) / 2**20
    print(f"{total:6.1f} MiB in {target}")


def slim(source: Path, target: Path) -> None:
    """Copies one wheel without its unused files, at the highest compression."""
    patterns = UNUSED.get(source.name.partition("-")[0], ())
    with (
        zipfile.ZipFile(source) as old,
        zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as new,
    ):
        for entry in old.infolist():
            if any(fnmatch(entry.filename, pattern) for pattern in patterns):
                continue
            data = old.read(entry)
            if entry.filename.endswith(".dist-info/RECORD"):
                data = _record(data.decode(), patterns).encode()
            new.writestr(entry, data, zipfile.ZIP_DEFLATED, 9)


def _record(text: str, patterns: tuple[str, ...]) -> str:
    """The lines of RECORD, which begin with a path, of the files that are left."""
    lines = text.splitlines(keepends=True)
    return "".join(
        line for line in lines if not any(fnmatch(line.split(",")[0], p) for p in patterns)
    )


if __name__ == "__main__":
    main(sys.argv[1:])
