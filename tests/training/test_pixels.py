"""A run on drawn pictures."""

import pytest
from small_runs import metrics_without_wall_clock, small_settings, stop_after

from mst_jax.envs.film import opengl
from mst_jax.training import plan_resume, plan_run, train, trainer


@pytest.mark.slow
def test_it_resumes_exactly_in_mid_episode(tmp_path, monkeypatch):
    try:
        opengl.require_renderer()
    except ValueError as error:
        pytest.skip(str(error))
    settings = small_settings(
        *("dmc_pixels:cartpole-swingup", "mst", "drqv2"),
        action_repeat=4,
        picture_size=32,
        quality="plain",
        steps=150,
        seeds=2,
        eval_every=150,
        eval_episodes=1,
        log_every=50,
        checkpoint_every=60,
    )
    whole = train(plan_run(settings, tmp_path / "whole"))
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "_stop_on_signal", stop_after(2_000))
        job = plan_resume(train(plan_run(settings, tmp_path / "stopped")).folder)
    assert job.task.spec[3:5] == (250, 4)
    assert 0 < job.checkpoint.step < 150
    resumed = train(job)
    assert resumed.fingerprint == whole.fingerprint
    assert metrics_without_wall_clock(resumed.folder) == metrics_without_wall_clock(whole.folder)
