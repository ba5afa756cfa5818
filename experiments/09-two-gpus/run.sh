#!/usr/bin/env bash
# Two GPUs of one host against one: speed, losses, and what is left when ranks are killed in the middle of training.
#
#     experiments/09-two-gpus/run.sh FOLDER [KILLS] [SEED]
#
# FOLDER has `postnas` (build-cuda, or a bundle); runs go to a temporary folder. KILLS (default 6) ranks, chosen with SEED
# (default 1), are killed in each of two series. With DEVICE=cpu the speed is left out: a trial of the script itself. BATCH:
# tokens of a step of the runs that are killed (default 65536).
# Prints what it measured. Exit status 0 when two GPUs reach 93 % of twice one, losses are within their bounds and a run
# whose ranks were killed has the bits of the undisturbed one.
set -euo pipefail
case ${1-} in "" | -h | --help) sed -n '2,10s/^# \{0,1\}//p' "$0"; exit 0 ;; esac
here=$(cd "$(dirname "$0")" && pwd)
postnas=$(cd "$1" && pwd)/postnas kills=${2:-6} device=${DEVICE:-cuda}
RANDOM=${3:-1}
[ -x "$postnas" ] || { echo "run.sh: there is no $postnas" >&2; exit 2; }
cd "$here/../.."
export OMP_WAIT_POLICY=passive
top=$(mktemp -d)
trap 'kill $(jobs -p) 2> /dev/null || true; rm -rf "$top"' EXIT
began=$(date +%s) failed=0
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
            print n && n == length(a) && n == length(b) ? most : "nan"
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
started=$(date +%s%N)
(train two 2)
whole=$((($(date +%s%N) - started) / 1000000))
(train again 2)
(train one 1)
f32=$(gap "$top/two" "$top/one")
say "undisturbed: $(losses "$top/two" | wc -l) steps of $batch tokens, $whole ms on two; losses of two and one apart by at most $f32"
must "losses of two ranks in F32" "$f32 <= 1e-3"
cmp "$top/two/model/model.safetensors" "$top/again/model/model.safetensors" || must "two runs on two ranks, the same bits" 0

# Kills one rank after a random time within MS; false when the run was over before.
disturb() { # disturb RUN MS RANKS
    local ms=$(($2 / 4 + RANDOM % ($2 * 3 / 4))) job at since status=0 ranks victim
    (train "$1" "$3") &
    job=$! victim=$!
    sleep $((ms / 1000)).$(printf %03d $((ms % 1000)))
    mapfile -t ranks < <(pgrep -P $job) # none where there is one rank: then it is the process itself
    [ ${#ranks[@]} = 0 ] || victim=${ranks[RANDOM % ${#ranks[@]}]}
    at=$(last_step "$top/$1") since=$(date +%s%N)
    kill -9 "$victim" 2> /dev/null || true
    wait $job 2> /dev/null || status=$?
    echo "  $3 ranks, $ms ms after the start, at ${at:-no step}: exit status $status, all ended" \
        "$((($(date +%s%N) - since) / 1000000)) ms later: $(grep error "$top/$1.err" | tail -n 1 | cut -c 1-160)"
    [ $status -ne 0 ]
}
series() { # series RUN RANKS...: a kill with each number of ranks in turn, then on to the end with two
    local run=$1 hits=0 i
    shift
    for ((i = 0; i < kills; i++)); do
        disturb "$run" "$whole" "${@:i % $# + 1:1}" || break
        hits=$((hits + 1))
    done
    (train "$run" 2) || { tail -n 3 "$top/$run.err"; exit 1; }
    say "$run: $hits kills, then to the end on two"
    must "kills in $run" "$hits >= $kills / 2"
}
series killed 2
if cmp "$top/two/model/model.safetensors" "$top/killed/model/model.safetensors"; then
    say "the killed run has the weights of the undisturbed one, bit for bit"
else
    must "the same bits" 0
fi
series changing 2 1
changed=$(gap "$top/two" "$top/changing")
say "with changing numbers of ranks: losses apart by at most $changed of the undisturbed run's"
must "losses with changing numbers of ranks" "$changed <= 1e-3"

if [ "$device" = cuda ]; then
    nvidia-smi --query-gpu=name,clocks.max.sm --format=csv,noheader
    for n in 2 1; do
        "$postnas" finetune --config "$here/speed.yaml" --set output="$top/speed$n" --ranks $n -q 2> "$top/err" ||
            { tail -n 3 "$top/err"; exit 1; }
        read -r median least most < <(speed "$top/speed$n")
        say "2B hybrid on $n GPUs: $median tokens/s ($least to $most)"
        eval "speed$n=$median"
        rm -rf "$top/speed$n/state" "$top/speed$n/model"
    done
    ratio=$(awk "BEGIN { print $speed2 / (2 * $speed1) }") bf16=$(gap "$top/speed2" "$top/speed1")
    say "two GPUs: $ratio of twice one; losses apart by at most $bf16 of one's"
    must "speed of two GPUs" "$ratio >= 0.93"
    must "losses of two GPUs in BF16" "$bf16 <= 1e-3"
fi
exit $failed
