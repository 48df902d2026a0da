#!/usr/bin/env bash
# Benchmarks, an exact-resume check and a learning run on a machine with a GPU and no network.
#
# usage: benchmarks/gpu/run.sh [PART...]   (all parts by default)
#   OUT            folder for results (benchmarks/results/gpu)
#   PYTHON         interpreter that has jax with CUDA (python3)
#   SITE           where carried wheels (.whl, see wheels.sh) are installed (a new temporary folder)
#   LEARN_SECONDS  the learning run is stopped after this long (480)
#   TRAIN_ARGS     more flags for the training runs of `learn` and `resume`
#   ANY_DEVICE=1   run without a GPU as well, to try this script
#
# Each part writes OUT/PART.json, or .txt, and a log; one that fails does not stop the others.
set -uo pipefail
cd "$(dirname "$0")/../.."
OUT=${OUT:-benchmarks/results/gpu}
PYTHON=${PYTHON:-python3}
export MUJOCO_GL=disabled PYTHONUNBUFFERED=1

if compgen -G '.whl/*.whl' >/dev/null; then
    SITE=${SITE:-$(mktemp -d)}
    "$PYTHON" -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir \
        --disable-pip-version-check --upgrade --target "$SITE" .whl/*.whl || exit
    export PYTHONPATH=$SITE
fi

backend=$("$PYTHON" -c 'import jax; print(jax.default_backend())') || exit
if [[ $backend != gpu && -z ${ANY_DEVICE:-} ]]; then
    echo "no GPU: jax sees the backend $backend only; nothing was run" >&2
    exit 1
fi
mkdir -p "$OUT"
nvidia-smi >"$OUT/nvidia-smi.txt" 2>&1 || rm -f "$OUT/nvidia-smi.txt"

topology() { "$PYTHON" -m benchmarks.topology --output="$OUT/topology.json"; }

training() {
    "$PYTHON" -m benchmarks.training --widths=64,512,2048 --seeds=1,2,4,8,16 \
        --output="$OUT/training.json"
}

simba() {
    "$PYTHON" -m benchmarks.simba --sizes=0.25x1,1x1,2x1,5x1 --steps=500,200,100,20 \
        --seed_sizes=0.25x1,1x1 --output="$OUT/simba.json"
}

diagnostics() { "$PYTHON" -m benchmarks.diagnostics --output="$OUT/diagnostics.json"; }

replay() { "$PYTHON" -m benchmarks.replay --output="$OUT/replay.json"; }

peers() { "$PYTHON" -m benchmarks.peers --sizes=1x1,2x1 --seeds=1,8 --output="$OUT/peers.json"; }

seed_count() {
    "$PYTHON" -m benchmarks.seed_count --width=256 --batch=256 --output="$OUT/seed_count.json"
}

# The full-size recipe of the paper on its hardest task, as far as the time goes.
learn() {
    local runs=$OUT/learn status
    # shellcheck disable=SC2086
    timeout --preserve-status --kill-after=120 "${LEARN_SECONDS:-480}" \
        "$PYTHON" -m experiments.train --task=dmc:dog-run --recipe=mst --seeds=4 \
        --checkpoint_every=0 --logdir="$runs" ${TRAIN_ARGS:-}
    status=$?
    tar -czf "$OUT/learn.tar.gz" --exclude=checkpoints -C "$runs" . && rm -rf "$runs"
    return $status
}

# A run killed after a checkpoint and resumed must have the fingerprint of one that never stopped.
resume() {
    local runs small folder pid
    runs=$(mktemp -d)
    small="--task=dmc:cartpole-swingup --seeds=2 --steps=600 --eval_every=300 --eval_episodes=1
        --log_every=100 --checkpoint_every=150 --config.learning_starts=100
        --config.target_period=50 --config.critic.interval=20
        ${TRAIN_ARGS:-}"
    export XLA_FLAGS="${XLA_FLAGS:-} --xla_gpu_deterministic_ops=true --xla_gpu_autotune_level=0"
    # shellcheck disable=SC2086
    "$PYTHON" -m experiments.train $small --logdir="$runs/whole" || return
    # shellcheck disable=SC2086
    "$PYTHON" -m experiments.train $small --logdir="$runs/broken" &
    pid=$!
    folder=$runs/broken/$(cd "$runs/whole" && echo */*)
    until compgen -G "$folder/checkpoints/full/[0-9]*[0-9]" >/dev/null; do
        kill -0 "$pid" || return
        sleep 0.1
    done
    kill -KILL "$pid"
    wait "$pid"
    "$PYTHON" -m experiments.train --resume="$folder" || return
    cat "$runs"/*/*/*/fingerprint.txt | tee "$OUT/resume.txt"
    if [[ $(sort -u "$OUT/resume.txt" | wc -l) != 1 ]]; then
        echo "resume: NOT exact" | tee -a "$OUT/resume.txt"
        return 1
    fi
    echo "resume: exact" | tee -a "$OUT/resume.txt"
}

[[ $# -gt 0 ]] || set -- topology training simba diagnostics replay peers seed_count resume learn
failed=()
for part in "$@"; do
    echo "== $part"
    # A subshell, so that what a part exports stays there.
    ("$part") 2>&1 | tee "$OUT/$part.log" || failed+=("$part")
done
echo "results in $OUT${failed:+; failed: ${failed[*]}}"
[[ -z ${failed:-} ]]
