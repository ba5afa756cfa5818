#!/usr/bin/env bash
# Installs what the build needs and is not there yet. Debian 12, Ubuntu 22.04 and 24.04.
#
#     scripts/setup.sh           compiler, build tools, libraries, the test library
#     scripts/setup.sh --dev     and the formatter that .ci/run checks with
#
# Silent, offline and without any privilege when nothing is missing.
set -euo pipefail

# package | what CMake looks for (tool:NAME, header:PATH or lib:PKG-CONFIG-MODULE) | why
needed='
gcc                    | tool:cc          | C17 compiler
libc6-dev              | header:stdlib.h  | C library headers
cmake                  | tool:cmake       | configures the build (3.22 or newer)
ninja-build            | tool:ninja       | runs the build
pkg-config             | tool:pkg-config  | finds the libraries
libyaml-dev            | lib:yaml-0.1     | configurations
libjansson-dev         | lib:jansson      | JSON: config.json, tokenizer.json, results
libxxhash-dev          | lib:libxxhash    | checksums of shards and checkpoints
libhdf5-dev            | lib:hdf5         | token shards, run state
libpcre2-dev           | lib:libpcre2-8   | tokenizer patterns
libutf8proc-dev        | lib:libutf8proc  | Unicode normalisation
zlib1g-dev             | lib:zlib         | compressed text corpora
libopenblas-openmp-dev | lib:openblas     | matrix products; this build shares our OpenMP threads
libopenmpi-dev         | lib:ompi-c       | several ranks, started by mpirun
openmpi-bin            | tool:mpirun      | mpirun itself
check                  | lib:check        | unit tests
'
dev_only='
clang-format-14        | tool:clang-format-14 | formatting; other versions format differently
'

die() { echo "setup.sh: $*" >&2; exit 1; }

list=$needed
case "${1-}" in
"") ;;
--dev) list+=$dev_only ;;
-h | --help) sed -n '2,7s/^# \{0,1\}//p' "$0"; exit 0 ;;
*) die "unknown argument $1; only --dev is known" ;;
esac

# Anything but Debian's packages: a library counts as there when pkg-config finds it.
there() { # there PACKAGE WHAT
    case $2 in
    tool:*) command -v "${2#tool:}" > /dev/null ;;
    lib:* | header:*)
        if command -v dpkg-query > /dev/null; then
            [[ " $installed " == *" $1 "* ]]
        elif [[ $2 == lib:* ]]; then
            pkg-config --exists "${2#lib:}" 2> /dev/null
        fi
        ;;
    esac
}

installed=""
if command -v dpkg-query > /dev/null; then
    packages=$(awk -F'|' 'NF == 3 { gsub(/ /, "", $1); print $1 }' <<< "$list")
    # shellcheck disable=SC2086 # one word per package
    installed=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' $packages 2> /dev/null |
        awk '$1 == "installed" { printf "%s ", $2 }' || true)
fi

missing=()
reasons=""
while IFS='|' read -r package what why; do
    package=${package// /} what=${what// /}
    [ -n "$package" ] || continue
    there "$package" "$what" && continue
    missing+=("$package")
    reasons+=$(printf '  %-24s%s' "$package" "${why# }")$'\n'
done <<< "$list"

if [ ${#missing[@]} -gt 0 ]; then
    command -v apt-get > /dev/null ||
        die "no apt-get on this system; install these (Debian's names) another way, then go on:"$'\n'"$reasons"
    as_root=()
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo > /dev/null ||
            die "not root and no sudo; as root run: apt-get install --no-install-recommends ${missing[*]}"
        as_root=(sudo)
    fi
    echo "setup.sh: installing"
    printf '%s' "$reasons"
    log=$(mktemp)
    trap 'rm -f "$log"' EXIT
    apt() {
        "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 "$@" \
            < /dev/null >> "$log" 2>&1
    }
    apt update || echo "setup.sh: apt-get update failed; trying with the package lists already here" >&2
    apt install --no-install-recommends "${missing[@]}" ||
        { tail -n 15 "$log" >&2; die "apt-get install failed; its last words are above"; }
fi

version=$(cmake --version | awk 'NR == 1 { print $3 }')
[ "$(printf '%s\n3.22\n' "$version" | sort -V | head -n 1)" = 3.22 ] ||
    die "cmake $version is too old; install 3.22 or newer and put it first on PATH"
