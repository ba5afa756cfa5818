#!/usr/bin/env bash
# Runs postnas as several ranks with Open MPI's mpirun, on this machine or on those of a host file.
#
#     scripts/cluster/mpirun.sh 2 finetune --config my.yaml                  two ranks here: two GPUs, or on the CPU
#     scripts/cluster/mpirun.sh 8 finetune --config my.yaml --set device=cuda
#     HOSTFILE=hosts PER_NODE=8 scripts/cluster/mpirun.sh 256 finetune ...    32 machines of 8 GPUs ("node1 slots=8", ...)
#
# More ranks than processors, and root, are allowed; ranks that wait sleep. Environment: POSTNAS, the program (default
# build/postnas, or build-cuda/postnas where it is there); HOSTFILE; PER_NODE, ranks on each machine; MPIRUN, more options.
# Exit status: postnas's; 75 means that the same command goes on where it stopped, and RESUME=N does so up to N times.
set -euo pipefail

case ${1-} in
"" | -h | --help) sed -n '2,11s/^# \{0,1\}//p' "$0"; exit 0 ;;
*[!0-9]* | 0) echo "mpirun.sh: \"$1\" is no number of ranks" >&2; exit 2 ;;
esac
ranks=$1
shift
here=$(cd "$(dirname "$0")/../.." && pwd)
program=${POSTNAS-}
[ -n "$program" ] || for program in "$here"/build-cuda/postnas "$here"/build/postnas; do [ ! -x "$program" ] || break; done
[ -x "$program" ] || { echo "mpirun.sh: there is no $program; build it, or name another with POSTNAS" >&2; exit 2; }
command -v mpirun > /dev/null || { echo "mpirun.sh: no mpirun; apt-get install openmpi-bin" >&2; exit 2; }

options=(-n "$ranks" --bind-to none)
[ "$(id -u)" -ne 0 ] || options+=(--allow-run-as-root)
if [ -n "${HOSTFILE-}" ]; then
    options+=(--hostfile "$HOSTFILE" --map-by "ppr:${PER_NODE:?HOSTFILE needs PER_NODE, ranks on each machine}:node")
    for name in LD_LIBRARY_PATH POSTNAS_TOKEN OMP_NUM_THREADS; do
        [ -z "${!name-}" ] || options+=(-x "$name")
    done
else
    options+=(--oversubscribe)
fi
# shellcheck disable=SC2206 # words
options+=(${MPIRUN-})

# A scheduler tells this script that time is up. The ranks save and stop at SIGUSR1, which mpirun passes on; at SIGTERM it
# would end them before they could.
told=0 job=
trap '[ -n "$job" ] || exit 75; told=1; kill -USR1 "$job" 2> /dev/null' TERM INT
for ((turn = ${RESUME:-0};; turn--)); do
    status=0
    mpirun "${options[@]}" "$program" "$@" < /dev/null &
    job=$!
    wait "$job" || status=$?
    while kill -0 "$job" 2> /dev/null; do # the signal ended the wait, and not the job
        status=0
        wait "$job" || status=$?
    done
    [ $status = 75 ] && [ "$turn" -gt 0 ] && [ $told = 0 ] || exit $status
done
