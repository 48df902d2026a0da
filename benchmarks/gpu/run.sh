#!/usr/bin/env bash
# Benchmarks, checks and learning runs on a machine with a GPU and no network, most telling first.
#
# usage: benchmarks/gpu/run.sh [PART...]   (all parts by default)
#   OUT            folder for results (benchmarks/results/gpu)
#   PYTHON         interpreter that has jax with CUDA (python3)
#   SITE           where carried wheels (.whl, see wheels.sh) are installed (a new temporary folder)
#   SIZE           full, or tiny: the same commands in minutes on a CPU, to rehearse this script
#   PART_SECONDS   a part that learns stops after this long, with a checkpoint (600)
#   AGAIN=1        run parts that are done once more
#   ANY_DEVICE=1   run without a GPU as well
#
# Each part writes OUT/PART.json, or run folders, and a log. A part that is done leaves OUT/PART.done
# and is skipped; one that was stopped goes on where it was when it is called again; one that fails
# does not stop the others. What lies in OUT afterwards enters docs/claims.md by
# python -m experiments.claims.
set -uo pipefail
cd "$(dirname "$0")/../.."
OUT=${OUT:-benchmarks/results/gpu}
PYTHON=${PYTHON:-python3}
SIZE=${SIZE:-full}
export MUJOCO_GL=disabled PYTHONUNBUFFERED=1

parts=(topology training srank mst_vs_uniform seed_count precision resume streaming drqv2 der
    simba diagnostics replay peers)
[[ $# -gt 0 ]] || set -- "${parts[@]}"
for part in "$@"; do
    if [[ " ${parts[*]} " != *" $part "* ]]; then
        echo "there is no part $part: choose from ${parts[*]}" >&2
        exit 2
    fi
done
case $SIZE in full | tiny) ;; *)
    echo "SIZE=$SIZE is neither full nor tiny" >&2
    exit 2
    ;;
esac

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

# Which of two words this size has.
by_size() { if [[ $SIZE == full ]]; then echo "$1"; else echo "$2"; fi; }

# A command that is asked for a checkpoint when its time is over.
limited() {
    timeout --preserve-status --kill-after=120 "${PART_SECONDS:-600}" "$@"
}

# A run in OUT/FOLDER that begins, or goes on where it stopped: true once it is finished. Its
# checkpoints are deleted then.
# usage: trained FOLDER FLAG...
trained() {
    local runs=$OUT/$1 folder
    shift
    folder=$(compgen -G "$runs/*/*/config.json" | head -n1)
    if [[ -z $folder ]]; then
        limited "$PYTHON" -m experiments.train --logdir="$runs" "$@"
    elif ! compgen -G "$runs/*/*/fingerprint.txt" >/dev/null; then
        limited "$PYTHON" -m experiments.train --resume="${folder%/config.json}"
    fi
    compgen -G "$runs/*/*/fingerprint.txt" >/dev/null || return
    find "$runs" -name checkpoints -prune -exec rm -rf {} +
}

topology() {
    # shellcheck disable=SC2046
    "$PYTHON" -m benchmarks.topology $(by_size "" "--sizes 1 --rounds 1") \
        --output="$OUT/topology.json"
}

training() {
    # shellcheck disable=SC2046
    "$PYTHON" -m benchmarks.training \
        $(by_size "--widths=64,512,2048 --seeds=1,2,4,8,16" "--widths=16 --seeds=1 --repeats=1") \
        --output="$OUT/training.json"
}

# Rank of the critic's features, dense and at S = 0.9, by 0.27 M frames: published for humanoid-run.
srank() {
    local sparse flags
    sparse="--recipe=network_sparsity_parity --config.critic.sparsity=0.9 --config.actor.sparsity=0.9"
    flags="--agent=sac --size=$(by_size 5x1 0.125x1) --task=dmc:humanoid-run --seeds=$(by_size 2 1)
        --steps=$(by_size 135000 300) --eval_every=$(by_size 45000 150)
        --eval_episodes=$(by_size 10 1) --log_every=$(by_size 5000 100)
        --diagnose_every=$(by_size 5000 100) --checkpoint_every=$(by_size 15000 100)
        --config.learning_starts=$(by_size 5000 100)"
    # shellcheck disable=SC2086
    trained srank/dense --recipe=dense $flags && trained srank/sparse $sparse $flags
}

# The study's own program is what goes on where it stopped.
mst_vs_uniform() {
    local size studies folder
    size=$(by_size small smoke)
    studies=$OUT/studies
    folder=$studies/mst_vs_uniform-$size
    # shellcheck disable=SC2046
    limited "$PYTHON" -m experiments.sweep --study=mst_vs_uniform --size="$size" --logdir="$studies" \
        $(by_size "--seeds=8 --block=8" "--seeds=1 --block=1 --steps=120") || return
    "$PYTHON" -m experiments.report "$folder" || return
    mkdir -p "$OUT/mst_vs_uniform"
    cp "$folder"/report/* "$OUT/mst_vs_uniform/"
    [[ $(find "$folder/runs" -name fingerprint.txt | wc -l) == \
        $(find "$folder/runs" -name config.json | wc -l) ]]
}

seed_count() {
    # shellcheck disable=SC2046
    "$PYTHON" -m benchmarks.seed_count \
        $(by_size "--width=256 --batch=256 --seeds=1,2,4,8,16,32,64" \
            "--width=16 --batch=16 --seeds=1,2 --steps=250 --repeats=1") \
        --output="$OUT/seed_count.json"
}

precision() {
    # shellcheck disable=SC2046
    "$PYTHON" -m benchmarks.precision \
        $(by_size "--cases=sac:1x1,sac:2x1,sac:5x1,mrq:1x1,drqv2:1x1 --steps=200,100,20,100,50 --seeds=1,8 --side=16384" \
            "--cases=sac:0.125x1 --steps=2 --seeds=1 --side=256 --repeats=1") \
        --output="$OUT/precision.json"
}

streaming() {
    # shellcheck disable=SC2046
    "$PYTHON" -m benchmarks.streaming --parts=updates \
        $(by_size "" "--widths=64 --agents=1 --steps=8 --repeats=1") \
        --output="$OUT/streaming.json"
}

drqv2() {
    # shellcheck disable=SC2046
    "$PYTHON" -m benchmarks.drqv2 $(by_size "--sizes=published" "--sizes=quickstart --repeats=1") \
        --seeds="$(by_size 1,2,4 1)" --output="$OUT/drqv2.json"
}

der() {
    # shellcheck disable=SC2046
    "$PYTHON" -m benchmarks.der --networks="$(by_size nature,impala nature)" \
        $(by_size "--seeds=1,4" "--seeds=1 --repeats=1") --output="$OUT/der.json"
}

simba() {
    # shellcheck disable=SC2046
    "$PYTHON" -m benchmarks.simba \
        $(by_size "--sizes=0.25x1,1x1,2x1,5x1 --steps=500,200,100,20 --seed_sizes=0.25x1,1x1" \
            "--sizes=0.125x1 --steps=2 --seeds=1 --seed_sizes=0.125x1 --seed_steps=1 --repeats=1") \
        --output="$OUT/simba.json"
}

diagnostics() { "$PYTHON" -m benchmarks.diagnostics --output="$OUT/diagnostics.json"; }

replay() { "$PYTHON" -m benchmarks.replay --output="$OUT/replay.json"; }

peers() {
    # shellcheck disable=SC2046
    "$PYTHON" -m benchmarks.peers \
        $(by_size "--sizes=1x1,2x1 --seeds=1,8" \
            "--sizes=0.0625x1 --seeds=1 --steps=10 --repeats=1 --batch=8") \
        --output="$OUT/peers.json"
}

# A run killed after a checkpoint and resumed must have the fingerprint of one that never stopped.
resume() {
    local runs small folder pid
    runs=$(mktemp -d)
    small="--task=dmc:cartpole-swingup --seeds=2 --steps=600 --eval_every=300 --eval_episodes=1
        --log_every=100 --checkpoint_every=150 --config.learning_starts=100
        --config.target_period=50 --config.critic.interval=20"
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

failed=()
for part in "$@"; do
    if [[ -e $OUT/$part.done && -z ${AGAIN:-} ]]; then
        echo "== $part: done before"
        continue
    fi
    rm -f "$OUT/$part.done"
    echo "== $part"
    SECONDS=0
    # A subshell, so that what a part exports stays there.
    if ("$part") 2>&1 | tee -a "$OUT/$part.log"; then
        echo "$SIZE, $SECONDS s" | tee "$OUT/$part.done"
    else
        failed+=("$part")
    fi
done
echo "results in $OUT${failed:+; not done: ${failed[*]}}"
[[ -z ${failed:-} ]]
