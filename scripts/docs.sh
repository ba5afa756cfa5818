#!/usr/bin/env bash
# Writes docs/commands.md and docs/config.md from the program: its own --help texts and tables of keys.
#
#     scripts/docs.sh                     write them
#     scripts/docs.sh --check             say whether they are current; writes nothing, exit status 1 when one is not
#     scripts/docs.sh --program PATH      another build than build/postnas
set -euo pipefail
cd "$(dirname "$0")/.."

program=build/postnas
check=0
while [ $# -gt 0 ]; do
    case $1 in
    --check) check=1 ;;
    --program)
        [ $# -gt 1 ] || { echo "docs.sh: --program needs a path" >&2; exit 2; }
        program=$2
        shift
        ;;
    -h | --help) sed -n '2,6s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) echo "docs.sh: unknown option $1; see scripts/docs.sh --help" >&2; exit 2 ;;
    esac
    shift
done
[ -x "$program" ] || { echo "docs.sh: there is no $program; build it, or name another with --program" >&2; exit 2; }

pages=$(mktemp -d)
trap 'rm -rf "$pages"' EXIT

commands() { "$program" list commands | sed -n 's/^  \([a-z_]*\) .*/\1/p'; }

{
    echo "# Commands"
    echo
    echo "Written by \`scripts/docs.sh\` from the program's \`--help\`; do not edit."
    echo
    for name in $(commands); do
        echo "- [$name](#$name): $("$program" "$name" --help | sed -n "1s/^postnas $name: //p")"
    done
    for name in "" $(commands); do
        echo
        echo "## ${name:-postnas}"
        echo
        echo '```text'
        # shellcheck disable=SC2086 # an empty name is no word
        "$program" $name --help
        echo '```'
    done
} >"$pages/commands.md"
"$program" config --markdown >"$pages/config.md"

status=0
for page in commands.md config.md; do
    if [ $check = 0 ]; then
        cp "$pages/$page" "docs/$page"
    elif ! diff -u "docs/$page" "$pages/$page"; then
        echo "docs.sh: docs/$page is not what the program says; run scripts/docs.sh and commit it" >&2
        status=1
    fi
done
exit $status
