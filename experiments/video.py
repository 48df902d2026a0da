"""Films one episode: python -m experiments.video RUN_FOLDER [FILE.mp4 or FILE.gif].

It is the first seed's newest policy; `experiments.evaluate --video=FILE` has more to choose from.
"""

import importlib
import importlib.util
import itertools
import math
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, cast

import jax
import numpy as np
from PIL import Image

from experiments.cli import launch, one_line_errors
from experiments.inputs import require_output, user_path
from mst_jax import envs
from mst_jax.envs import HostTask, JaxEnv
from mst_jax.envs.base import episode_seed
from mst_jax.envs.film.stage import Stage, open_stage
from mst_jax.program.evaluation import SEED_OFFSET, action_key, episode_keys, episodes_together
from mst_jax.program.state import seed_keys
from mst_jax.runs import Settings, read_settings
from mst_jax.runs.folder import FILMS
from mst_jax.training import Policy, load_snapshot

EPISODES_PLAYED, START_STATES = 10, 1_000_000  # of an evaluation, unless flags say otherwise
SHORTEST = 0.02  # seconds a picture stays: GIFs know hundredths, and browsers slow down below two


def main(argv: list[str]) -> None:
    """Films the first episode that an evaluation with its default flags plays."""
    with one_line_errors():
        if len(argv) not in (2, 3):
            raise ValueError("name a run folder, and a .mp4 or .gif file if you like")
        folder = user_path(argv[1])
        default = folder / FILMS[encoder() is None]
        path = user_path(argv[2]) if len(argv) > 2 else default
        read_settings(folder)  # refuses a folder that is no run
        writer(path)  # and a file that cannot be written
        snapshot = load_snapshot(folder)
        settings = snapshot.settings
        task = envs.make(settings.task, **settings.task_options)
        start = first_start(task, settings.seed_list, 0, EPISODES_PLAYED, START_STATES)
        key = first_key(settings.seed_list, 0, EPISODES_PLAYED, START_STATES)
        print(film(path, settings, snapshot.policy(), start, key))


class Film:
    """The pictures of one episode, drawn while it is played.

    Attributes:
        seconds: how long a picture stays, so that time runs as it does in the simulation.
        steps: agent steps taken so far.
        total: return so far.
    """

    def __init__(
        self, stage: Stage, policy: Policy, start: Any, key: jax.Array | None = None
    ) -> None:
        """Starts the episode.

        Args:
            stage: what to film.
            policy: who acts.
            start: as `Stage.reset` takes it.
            key: of the episode, as `first_key` gives it; None for a policy without chance.
        """
        self._stage, self._policy, self._key = stage, policy, key
        self._observation = stage.reset(start)
        self._stride = math.ceil(SHORTEST / stage.seconds - 1e-6)
        self.seconds = stage.seconds * self._stride
        self.steps, self.total = 0, 0.0

    def pictures(self) -> Iterator[np.ndarray]:
        """Plays the episode: uint8 (H, W, 3) of its states, less the final one."""
        try:
            ended = False
            while not ended:
                if self.steps % self._stride == 0:
                    yield self._stage.picture()
                action = self._action()
                self._observation, reward, ended = self._stage.step(action)
                self.steps, self.total = self.steps + 1, self.total + reward
        finally:
            self._stage.close()

    def _action(self) -> np.ndarray:
        if self._key is None:
            return self._policy.act(self._observation)
        return self._policy.act(self._observation, action_key(self._key, np.int32(self.steps)))


def film(
    path: Path, settings: Settings, policy: Policy, start: Any, key: jax.Array | None = None
) -> str:
    """Films an episode and says how it went.

    Args:
        path: a `.gif` or `.mp4` file to write.
        settings: of the run, whose task is filmed.
        policy: who acts.
        start: as `first_start` gives it.
        key: as `first_key` gives it.

    Raises:
        ValueError: when the file, the task or the machine does not allow it.
    """
    write = writer(path)
    stage = open_stage(settings.task, **settings.task_options)
    shown = Film(stage, policy, start, key)
    write(path, shown.pictures(), shown.seconds)
    return f"written to {path}: {shown.steps} steps, return {shown.total:.1f}"


def first_start(
    env: JaxEnv | HostTask, seeds: list[int], position: int, episodes: int, index: int
) -> Any:
    """Where the first episode of an evaluation begins, for the seed at `position` of `seeds`.

    The other arguments are as in `make_evaluator` and as its result is called.
    """
    if isinstance(env, JaxEnv):
        return first_key(seeds, position, episodes, index)
    rounds = episodes // episodes_together(len(seeds), episodes)
    return episode_seed(seeds[position] + SEED_OFFSET, 0, index * rounds)


def first_key(seeds: list[int], position: int, episodes: int, index: int) -> jax.Array:
    """The key of that episode, from which those of its actions are drawn."""
    return episode_keys(seed_keys([seeds[position] + SEED_OFFSET]), index, episodes)[0, 0]


def writer(path: Path) -> Callable[[Path, Iterator[np.ndarray], float], None]:
    """What writes such a file: `write(path, pictures, seconds)`.

    Raises:
        ValueError: when it is neither, cannot be written, or the encoder is missing.
    """
    require_output(path, (".mp4", ".gif"))
    if path.suffix == ".gif":
        return write_gif
    if encoder() is None:
        raise ValueError("an .mp4 file needs pip install 'mst_jax[video]'; a .gif file does not")
    return write_mp4


def encoder() -> str | None:
    """Path of ffmpeg: the system's, or the one that `imageio-ffmpeg` brings; None without."""
    found = shutil.which("ffmpeg")
    if found is None and importlib.util.find_spec("imageio_ffmpeg"):
        found = importlib.import_module("imageio_ffmpeg").get_ffmpeg_exe()
    return found


def write_gif(path: Path, pictures: Iterator[np.ndarray], seconds: float) -> None:
    """Writes an endless animation; `seconds` are rounded to hundredths."""
    images = map(Image.fromarray, pictures)  # one at a time: of a long game they are 10 GB
    milliseconds = 10 * round(100 * seconds)
    next(images).save(path, save_all=True, append_images=images, duration=milliseconds, loop=0)


def write_mp4(path: Path, pictures: Iterator[np.ndarray], seconds: float) -> None:
    """Writes a video, H.264 where ffmpeg has it, picture by picture."""
    first = next(pictures)
    height, width, _ = first.shape
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", f"{1 / seconds}"]
    program = encoder() or "ffmpeg"
    command = [program, "-loglevel", "error", "-y", *raw, "-i", "-", "-pix_fmt", "yuv420p"]
    with subprocess.Popen([*command, str(path)], stdin=subprocess.PIPE) as process:
        pipe = cast("IO[bytes]", process.stdin)  # one was asked for
        for picture in itertools.chain([first], pictures):
            pipe.write(np.ascontiguousarray(picture).data)
    if process.returncode:
        raise ValueError(f"ffmpeg could not write {path}")


if __name__ == "__main__":
    launch(main, arguments=True)
