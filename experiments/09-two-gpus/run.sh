#!/usr/bin/env bash
# Two GPUs of one host, or more, against one: speed, losses, and what is left when ranks are killed in the middle of training.
#
#     experiments/09-two-gpus/run.sh FOLDER [KILLS] [SEED]
#
# FOLDER has `postnas` (build-cuda, or a bundle); runs go to a temporary folder. KILLS (default 6) ranks, chosen with SEED
# (default 1), are killed in each of two series. From the environment: GPUS, how many (2, 4, 8; default 2); BATCH, tokens of a
# step of the runs that are killed (default 65536); DEVICE=cpu leaves the speed out: a trial of the script itself.
# Prints what it measured. Exit status 0 when two GPUs reach 93 % of twice one, losses are within their bounds and a run
# whose ranks were killed has the bits of the undisturbed one.
set -euo pipefail
case ${1-} in "" | -h | --help) sed -n '2,10s/^# \{0,1\}//p' "$0"; exit 0 ;; esac
here=$(cd "$(dirname "$0")" && pwd)
postnas=$(cd "$1" && pwd)/postnas kills=${2:-6} device=${DEVICE:-cuda} gpus=${GPUS:-2}
RANDOM=${3:-1}
case $gpus in 2 | 4 | 8) ;; *) echo "run.sh: GPUS is 2, 4 or 8" >&2; exit 2 ;; esac
sizes=()
for ((n = gpus; n >= 1; n /= 2)); do sizes+=("$n"); done
[ -x "$postnas" ] || { echo "run.sh: there is no $postnas" >&2; exit 2; }
cd "$here/../.."
export OMP_WAIT_POLICY=passive
top=$(mktemp -d)
trap 'kill $(jobs -p) 2> /dev/null || true; rm -rf "$top"' EXIT
began=$(date +%s) failed=0 speeds=()
say() { echo "[$(($(date +%s) - began)) s] $*"; }
must() { # must WHAT AWK-CONDITION
    [[ $2 != *nan* ]] && awk "BEGIN { exit !($2) }" || { echo "FAILED: $1 ($2)"; failed=1; }
}

# Of a run's log: "series step loss" of every training step, as it was taken last; the median speed from step 4 on.
losses() {
    sed -n 's/.*"series": "\([^"]*\)", "step": \([0-9]*\), "loss": \([0-9.e+-]*\),.*"gradient_norm".*/\1\t\2\t\3/p' "$1/log.jsonl"
}
last_step() { losses "$1" 2> /dev/null | tail -n 1 | cut -f 1,2 | tr '\t' ' '; }
speed() {
    grep -o '"tokens_per_second": *[0-9.e+]*' "$1/log.jsonl" | sed 's/.*: *//' | tail -n +4 | sort -g |
        awk '{ x[NR] = $1 } END { print x[int((NR + 1) / 2)], x[1], x[NR] }'
}
# How far the losses of two runs are apart at most, relative; both must have the same steps.
gap() {
    awk -F '\t' 'NR == FNR { a[$1 FS $2] = $3; next } { b[$1 FS $2] = $3 }
        END {
            for (k in a) if (k in b) { d = a[k] / b[k] - 1; if (d < 0) d = -d; if (d > most) most = d; n++ }
            print n && n == length(a) && n == length(b) ? 0 + most : "nan"
        }' <(losses "$1") <(losses "$2")
}

# The two-stage recipe on the small base in 30 steps that are long enough to be killed in.
train() { # train RUN RANKS
    exec "$postnas" finetune --config configs/quickstart-finetune.yaml --device "$device" --precision f32 \
        --set stages.0.batch_tokens="$batch" --set stages.0.tokens=$((20 * batch)) --set stages.0.micro_batch_tokens=1024 \
        --set stages.1.batch_tokens="$batch" --set stages.1.tokens=$((10 * batch)) --set stages.1.micro_batch_tokens=1024 \
        --set stages.0.heldout_tokens=2048 --set stages.0.evaluate_tokens=1e9 --set stages.0.checkpoint_seconds=0.3 \
        --set stages.1.heldout_tokens=2048 --set stages.1.evaluate_tokens=1e9 --set stages.1.checkpoint_seconds=0.3 \
        --set ranks.limit_seconds=10 --set output="$top/$1" --ranks "$2" -q 2> "$top/$1.err"
}
batch=${BATCH:-65536}
(train again "$gpus")
for n in "${sizes[@]}"; do (train "on$n" "$n"); done
steps=$(losses "$top/on1" | wc -l)
say "undisturbed: $steps steps of $batch tokens"
for n in "${sizes[@]:0:${#sizes[@]}-1}"; do
    f32=$(gap "$top/on$n" "$top/on1")
    say "losses of $n ranks and one, in F32, apart by at most $f32"
    must "losses of $n ranks in F32" "$f32 <= 1e-3"
done
cmp "$top/on$gpus/model/model.safetensors" "$top/again/model/model.safetensors" ||
    must "two runs on $gpus ranks, the same bits" 0

# Kills one rank in the middle of a random step among the next STEPS; false when the run was over before.
disturb() { # disturb RUN STEPS RANKS
    local target job at since status=0 ranks victim
    target=$(($(losses "$top/$1" 2> /dev/null | wc -l) + 1 + RANDOM % $2))
    (train "$1" "$3") &
    job=$! victim=$!
    while kill -0 $job 2> /dev/null && [ "$(losses "$top/$1" 2> /dev/null | wc -l)" -lt $target ]; do sleep 0.02; done
    sleep "0.$(printf %03d $((RANDOM % 200)))"
    mapfile -t ranks < <(pgrep -P $job) # none where there is one rank: then it is the process itself
    [ ${#ranks[@]} = 0 ] || victim=${ranks[RANDOM % ${#ranks[@]}]}
    at=$(last_step "$top/$1") since=$(date +%s%N)
    kill -9 "$victim" 2> /dev/null || true
    wait $job 2> /dev/null || status=$?
    echo "  $3 ranks, after ${at:-no step}: exit status $status, all ended" \
        "$((($(date +%s%N) - since) / 1000000)) ms later: $(grep error "$top/$1.err" | head -n 1 | cut -c 1-160)"
    [ $status -ne 0 ]
}
series() { # series RUN RANKS...: a kill with each number of ranks in turn, then on to the end with all
    local run=$1 hits=0 i
    shift
    for ((i = 0; i < kills; i++)); do
        disturb "$run" $((steps * 3 / 2 / (kills + 1))) "${@:i % $# + 1:1}" || break
        hits=$((hits + 1))
    done
    (train "$run" "$gpus") || { tail -n 3 "$top/$run.err"; exit 1; }
    say "$run: $hits kills, then to the end on $gpus"
    must "kills in $run" "$hits >= $kills / 2"
}
series killed "$gpus"
if cmp "$top/on$gpus/model/model.safetensors" "$top/killed/model/model.safetensors"; then
    say "the killed run has the weights of the undisturbed one, bit for bit"
else
    must "the same bits" 0
fi
series changing "${sizes[@]}"
changed=$(gap "$top/on$gpus" "$top/changing")
say "with changing numbers of ranks: losses apart by at most $changed of the undisturbed run's"
must "losses with changing numbers of ranks" "$changed <= 1e-3"

if [ "$device" = cuda ]; then
    nvidia-smi --query-gpu=name,clocks.max.sm --format=csv,noheader
    hybrid() { # hybrid RUN RANKS [SETTING...]
        "$postnas" finetune --config "$here/speed.yaml" --set output="$top/$1" --ranks "$2" -q "${@:3}" 2> "$top/$1.err" ||
            { tail -n 3 "$top/$1.err"; exit 1; }
        rm -rf "$top/$1/state" "$top/$1/model"
    }
    for n in "${sizes[@]}"; do
        hybrid "speed$n" "$n"
        read -r median least most < <(speed "$top/speed$n")
        say "2B hybrid on $n GPUs: $median tokens/s ($least to $most)"
        speeds[n]=$median
    done
    # F32, where sums in another order are all that differs; and in BF16 the same mathematics once more on one GPU.
    exactly=(--precision f32 --set stages.0.batch_tokens=8192 --set stages.0.micro_batch_tokens=4096 --set stages.0.tokens=131072)
    hybrid exact2 2 "${exactly[@]}"
    hybrid exact1 1 "${exactly[@]}"
    hybrid halves 1 --set stages.0.micro_batch_tokens=8192
    exact=$(gap "$top/exact2" "$top/exact1") halves=$(gap "$top/halves" "$top/speed1")
    say "2B hybrid in F32: losses of two GPUs and one apart by at most $exact"
    must "losses of two GPUs in F32" "$exact <= 1e-3"
    say "2B hybrid in BF16: losses of one GPU with passes of half the tokens apart by at most $halves"
    for n in "${sizes[@]:0:${#sizes[@]}-1}"; do
        ratio=$(awk "BEGIN { print ${speeds[n]} / ($n * ${speeds[1]}) }") bf16=$(gap "$top/speed$n" "$top/speed1")
        say "$n GPUs: $ratio of $n times one; losses in BF16 apart by at most $bf16"
        must "losses of $n GPUs in BF16" "$bf16 <= $halves"
        [ "$n" != 2 ] || must "speed of two GPUs" "$ratio >= 0.93"
    done
fi
exit $failed
