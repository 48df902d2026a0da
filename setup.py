"""Package metadata of mst_jax. Pins are ranges; every upper bound names the break it avoids."""

import re
from pathlib import Path

from setuptools import find_packages, setup

# dm_control 1.0.50 fails in suite.load with mujoco 4, which removed its flex fields.
MUJOCO = "mujoco>=3.17,<4"

# dm_control requires labmaze, which its suite never imports and which has no wheel for Python 3.13
# (building it needs bazel). There, `pip install --no-deps dm_control==1.0.50` completes this.
DM_CONTROL_NEEDS = [
    "dm-env",
    "dm-tree",
    "glfw",
    "lxml",
    "pyopengl",
    "pyparsing",
    "requests",
    "scipy",
]
DM_CONTROL = [
    "dm_control==1.0.50; python_version < '3.13'",
    *(f"{name}; python_version >= '3.13'" for name in DM_CONTROL_NEEDS),
]

ROOT = Path(__file__).parent
# Read, not imported: the package needs what is about to be installed.
VERSION = re.search(r'__version__ = "(.+)"', (ROOT / "mst_jax/__init__.py").read_text())[1]

# Each is experiments/NAME.py; `experiments.cli.script` says what a console script does.
LAUNCHERS = (
    "train",
    "evaluate",
    "plot",
    "inspect",
    "video",
    "sweep",
    "report",
    "quickstart",
    "export",
)

setup(
    name="mst_jax",
    version=VERSION,
    description="Sparse training for scalable deep reinforcement learning, in JAX",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=find_packages(include=["mst_jax", "mst_jax.*", "experiments", "experiments.*"]),
    package_data={"mst_jax": ["py.typed"], "experiments.claims": ["*.toml"]},
    entry_points={
        "console_scripts": [f"mst-{name} = experiments.cli:script" for name in LAUNCHERS]
    },
    python_requires=">=3.11",
    install_requires=[
        "jax>=0.10,<0.13",  # each jax minor so far removed something; tried: 0.10, 0.11, 0.12
        "flax>=0.12,<0.13",
        "optax>=0.2.8,<0.3",
        "chex>=0.1.92",
        "numpy>=2",
        "absl-py",
        "ml_collections>=1.1",  # DEFINE_config_dataclass
        "orbax-checkpoint>=0.12",
        *DM_CONTROL,
        MUJOCO,
        "mujoco-mjx>=3.17,<4",
        "brax==0.14.2",
        "matplotlib>=3.9",
        "scipy>=1.14",  # jax needs it too
        "tensorboardX>=2.6.5",
        "tqdm",
    ],
    extras_require={
        "dev": [
            "pytest>=8",
            "pytest-xdist>=3.8",
            "hypothesis>=6",
            "ruff==0.15.22",
            "ty==0.0.107",
            "scipy",
            "nbclient",
            "ipykernel",
        ],
        # mkdocs 2 is announced without plugins, which mkdocstrings is one of.
        "docs": ["mkdocs>=1.6,<2", "mkdocs-material>=9.8,<10", "mkdocstrings[python]>=1,<2"],
        "gym": ["gymnasium[mujoco]==1.4.0", MUJOCO],
        "atari": ["ale-py==0.12.1"],
        "envpool": ["envpool==1.2.5"],
        "playground": ["playground==0.2.0", MUJOCO, "mujoco-mjx>=3.17,<4"],
        # arch<8, which rliable needs, fails on import with pandas 3 (deprecate_kwarg changed)
        "rliable": ["rliable>=1.2", "pandas<3"],
        "video": ["imageio-ffmpeg>=0.6"],
        # What tests and benchmarks compare with.
        "peers": ["torch==2.13.0", "gymnasium==1.4.0", "opencv-python-headless"],
        "slurm": ["submitit>=1.5"],
        "wandb": ["wandb>=0.19.10"],  # the first with several runs in one process
        "cuda": ["jax[cuda13]>=0.10,<0.13"],
    },
)
