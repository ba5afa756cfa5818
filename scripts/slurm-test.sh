#!/usr/bin/env bash
# Whether scripts/cluster/slurm.sh does under a real Slurm what it says, on the CPUs of this machine:
#
#     sudo scripts/slurm-test.sh          a few minutes; needs slurm-wlm, munge, iproute2 and a build
#
# A throw-away cluster of two nodes, both of them this machine, lives in a temporary folder and in namespaces of its own
# (processes, a network of loopback alone, host names): nothing outside sees it, and it ends with this script, however that
# ends. Two ranks train to the end, on one node and on two; lose a rank to `kill -9`, and are submitted again; are stopped by
# the time limit, and requeued. Their weights are those of `--ranks 2` without Slurm, byte for byte, each time.
# Environment: POSTNAS, the program (default build/postnas). Exit status: 0, 1 a check failed, 77 something is missing.
set -euo pipefail
case ${1-} in -h | --help) sed -n '2,11s/^# \{0,1\}//p' "$0"; exit 0 ;; esac
cd "$(dirname "$0")/.."
export PATH=$PATH:/usr/sbin

# ---- outside: the folder, the namespaces, and their end ----

if [ "${1-}" != --inside ]; then
    missing() {
        echo "slurm-test.sh: $1" >&2
        exit 77
    }
    for tool in slurmctld slurmd munged ip; do
        type $tool > /dev/null 2>&1 || missing "no $tool: apt-get install -y slurm-wlm munge iproute2"
    done
    [ "$(id -u)" = 0 ] || missing "slurmd starts a job as its user, which takes root: sudo $0"
    unshare --pid --fork --net --uts true || missing "no namespaces here; a container may need more rights (--privileged)"
    export POSTNAS=${POSTNAS:-$PWD/build/postnas}
    [ -x "$POSTNAS" ] || missing "there is no $POSTNAS: cmake --preset release && cmake --build build"
    top=$(mktemp -d) space=
    # a namespace of processes ends with its first one
    trap '{ kill -KILL "$(cat "/proc/$space/task/$space/children")" || true; wait || true; rm -rf "$top"; } 2> /dev/null' EXIT
    trap 'exit 130' INT TERM HUP
    chmod 711 "$top" # munged wants its socket within everybody's reach
    setpriv --pdeathsig KILL unshare --pid --fork --kill-child --mount-proc --net --uts "scripts/${0##*/}" --inside "$top" &
    space=$!
    wait $space
    exit
fi

# ---- the cluster ----

top=$2 log=$2/slurmctld.log job=
fail() {
    echo "slurm-test.sh: $1; the end of ${log##*/}:" >&2
    tail -n 20 "$log" >&2
    exit 1
}
export SLURM_CONF=$top/slurm.conf OMP_NUM_THREADS=1 # how many a machine has for a rank is no part of this
printf '%s\n' '127.0.0.1 localhost' '10.0.0.1 node1' '10.0.0.2 node2' > "$top/hosts"
mount --bind "$top/hosts" /etc/hosts
hostname node1
ip link set lo up
for at in 1 2; do ip address add 10.0.0.$at/32 dev lo; done # Slurm does not listen where all addresses are 127.0.0.1
mkdir "$top/state" "$top/node1" "$top/node2"
for i in 0 1; do mknod "$top/gpu$i" c 1 3; done # /dev/null: enough for Slurm to hand out; postnas trains on the CPU
echo "Name=gpu File=$top/gpu[0-1]" > "$top/gres.conf"
(umask 077 && head -c 1024 /dev/urandom > "$top/key")
machine=$(slurmd -C | sed -n 's/^NodeName=[^ ]* //p')
cat > "$SLURM_CONF" << END
ClusterName=postnas
SlurmctldHost=node1
SlurmUser=root
# a job that was requeued waits until the credential of its last start has expired
AuthInfo=socket=$top/munge.socket,cred_expire=5
StateSaveLocation=$top/state
SlurmdSpoolDir=$top/%n
SlurmctldPidFile=$top/slurmctld.pid
SlurmdPidFile=$top/%n.pid
SlurmctldLogFile=$top/slurmctld.log
SlurmdLogFile=$top/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/affinity
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=sched_interval=2,bf_interval=2
GresTypes=gpu
NodeName=node1 Port=7001 Gres=gpu:2 $machine
NodeName=node2 Port=7002 Gres=gpu:2 $machine
PartitionName=all Nodes=ALL Default=YES
END
munged --key-file="$top/key" --socket="$top/munge.socket" --pid-file="$top/munge.pid" --log-file="$top/munge.log" \
    --seed-file="$top/munge.seed"
SECONDS=0
slurmctld
for node in node1 node2; do slurmd -N $node; done
until [ "$(timeout 5 sinfo -h -t idle -o %D 2> /dev/null)" = 2 ]; do
    [ $SECONDS -le 30 ] || fail "the cluster did not start"
    sleep 0.2
done

# ---- runs and jobs ----

tokens=81920 # of each stage: 40 steps
begin() {    # the run $1 and its log
    log=$top/$1.log
    arguments=(finetune --config configs/quickstart-finetune.yaml --set output="$top/$1" --set ranks.limit_seconds=20)
    for i in 0 1; do
        for setting in tokens=$tokens heldout_tokens=2048 evaluate_tokens=0 checkpoint_seconds=0.2; do
            arguments+=(--set "stages.$i.$setting")
        done
    done
}
without_slurm() {
    begin "$1"
    "$POSTNAS" "${arguments[@]}" --ranks 2 > "$log" 2>&1 || fail "the run without Slurm failed"
}
submit() { # with options of sbatch
    job=$(sbatch --parsable --output="$log" "$@" scripts/cluster/slurm.sh "${arguments[@]}")
}
value() { scontrol show job "$job" | sed -n "s/.*\b$1=\([^ ]*\).*/\1/p"; }
ends() { # within $1 seconds, as $2
    local limit=$((SECONDS + $1)) state
    until state=$(value JobState) && [[ $state =~ COMPLETED|FAILED|CANCELLED|TIMEOUT|NODE_FAIL ]]; do
        [ $SECONDS -le $limit ] || fail "job $job is $state after $1 s"
        sleep 0.1
    done
    [ "$state" = "$2" ] || fail "job $job is $state ($(value ExitCode)), not $2"
}
same() { cmp "$top/$1/model/model.safetensors" "$top/$2/model/model.safetensors" || fail "job $job made other weights"; }
says() { grep -q "$1" "$log" || fail "job $job does not say \"$1\""; }
passed() { echo "$SECONDS s: $1"; }
two_here=(--ntasks-per-node=2 --gpus-per-node=2 --cpus-per-task=1)

# ---- the checks ----

sees() { # each rank, instead of training, says "$1" with the options after it
    log=$top/sees.log
    # shellcheck disable=SC2016 # the rank's own
    arguments=(-c 'echo "$(nproc --ignore=0) processors, GPUs $CUDA_VISIBLE_DEVICES"')
    POSTNAS=/bin/sh OMP_NUM_THREADS='' submit --open-mode=truncate "${@:2}"
    ends 60 COMPLETED
    [ "$(sort -u "$log")" = "$1" ] || fail "job $job: not \"$1\" for each rank"
}
sees '2 processors, GPUs 0' --ntasks-per-node=1 --gpus-per-node=1 --cpus-per-task=2
sees '1 processors, GPUs 0,1' "${two_here[@]}"
passed "$(slurmctld -V): a rank has its processors and all GPUs of its node"

began=$(date +%s%N)
without_slurm short
ms=$((($(date +%s%N) - began) / 1000000))
begin one-node
submit "${two_here[@]}"
ends 300 COMPLETED
same short one-node
begin two-nodes
submit --nodes=2 --ntasks-per-node=1 --gpus-per-node=1 --cpus-per-task=2
ends 300 COMPLETED
[ "$(value NodeList)" = "node[1-2]" ] || fail "job $job ran on $(value NodeList)"
same short two-nodes
passed "two ranks, on one node and on two: the weights of --ranks 2"

begin killed
submit "${two_here[@]}"
until [ -e "$top/killed/state/stage-1/latest" ] || [ $SECONDS -gt 300 ]; do sleep 0.1; done
for pid in $(pgrep -x postnas); do
    ! grep -qzx SLURM_PROCID=1 "/proc/$pid/environ" || kill -KILL "$pid"
done
ends 20 FAILED # ranks.limit_seconds
says 'postnas: error: rank 1 failed: its process ended'
submit "${two_here[@]}"
ends 300 COMPLETED
says 'resuming at step'
same short killed
passed "a rank killed: an error that names it; submitted again: the same weights"

# Slurm counts time limits in minutes, looks at them every 30 s from its start on, and signals up to 30 s early: so at its
# next look. The run takes 30 s or so, and starts about 10 s before.
times=$((30000 / ms))
tokens=$((tokens * (times > 3 ? times : 3)))
without_slurm long
begin stopped
until [ $((SECONDS % 30)) = 20 ]; do sleep 0.1; done
submit "${two_here[@]}" --time=1 --signal=TERM@30
ends 300 COMPLETED
[ "$(value Restarts)" -ge 1 ] || fail "job $job was over before its time"
says 'state saved: the same command goes on from here'
says 'Exited with exit code 75'
says 'resuming at step'
same long stopped
passed "stopped by the time limit and requeued: the same weights"
