#!/usr/bin/env bash
# Collects the wheels that a GPU machine lacks, slimmed, into .whl: run where there is a network.
#
# usage: benchmarks/gpu/wheels.sh [FOLDER]
#   PYTHON          an interpreter with this package installed; its versions are taken (.venv)
#   TARGET_PYTHON   the GPU machine's version (3.12)
#
# The GPU machine is expected to have jax with CUDA, flax, optax, chex, orbax-checkpoint, absl-py,
# matplotlib, tqdm, lxml, scipy and PyTorch; nothing that is carried replaces any of those.
set -euo pipefail
cd "$(dirname "$0")/../.."
folder=${1:-.whl}
python=${PYTHON:-.venv/bin/python}
names="brax dm_control dm-env dm-tree glfw jaxopt ml_collections mujoco mujoco-mjx pyopengl tensorboardX trimesh"

platforms=() # pip matches the number exactly, and each package names another
for minor in 39 38 37 36 35 34 33 32 31 30 29 28 27 26 25 24 23 22 21 20 19 18 17; do
    platforms+=(--platform "manylinux_2_${minor}_x86_64")
done
platforms+=(--platform manylinux2014_x86_64)

pinned=()
for name in $names; do
    version=$("$python" -c "import importlib.metadata as m; print(m.version('$name'))")
    pinned+=("$name==$version")
done
whole=$(mktemp -d)
trap 'rm -rf "$whole"' EXIT
# One by one: dm-tree and glfw have wheels for several platforms, others for any.
for requirement in "${pinned[@]}"; do
    "$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
        --python-version "${TARGET_PYTHON:-3.12}" --implementation cp "${platforms[@]}" \
        -d "$whole" "$requirement"
done
rm -rf "$folder"
"$python" -m benchmarks.gpu.slim_wheels "$whole" "$folder"
