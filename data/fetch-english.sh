#!/usr/bin/env bash
# English prose as token shards: four manuals to train on, three others for a search to look at, two more held out.
#
#     data/fetch-english.sh MODEL_DIR [OUT_DIR] [CACHE_DIR]    default: shards/english, and .cache/english beside it
#
# The books are Debian documentation packages with free licences, fetched by apt-get download (no root, nothing is
# installed) and cut down to their paragraphs of prose; MODEL_DIR is where the tokenizer is. What is there already is
# not fetched again. OUT_DIR/SOURCES names every package with its version. Needs apt-get, dpkg-deb, awk and a built
# postnas (POSTNAS=path to use another than build/postnas).
set -euo pipefail

# split  package  text file in it
books="
train   developers-reference  usr/share/developers-reference/developers-reference.txt.gz
train   debian-policy         usr/share/doc/debian-policy/policy.txt.gz
train   debian-reference-en   usr/share/debian-reference/debian-reference.en.txt.gz
train   maint-guide           usr/share/doc/maint-guide/maint-guide.en.txt.gz
search  debian-history        usr/share/doc/debian-history/docs/project-history.en.txt.gz
search  doc-debian            usr/share/doc/debian/constitution.txt.gz
search  git-doc               usr/share/doc/git-doc/user-manual.txt
heldout debian-faq            usr/share/doc/debian/FAQ/debian-faq.en.txt.gz
heldout jargon-text           usr/share/doc/jargon-text/jargon.txt.gz
"
declare -A at_least=([train]=150000 [search]=16384 [heldout]=49152) # tokens

fail() { echo "fetch-english: $*" >&2; exit 2; }

[ $# -ge 1 ] || fail "name the model directory whose tokenizer to use: data/fetch-english.sh models/smollm2-135m"
root=$(cd "$(dirname "$0")/.." && pwd)
model=$1
out=${2:-$root/shards/english}
cache=${3:-$(dirname "$out")/.cache/english}
postnas=${POSTNAS:-$root/build/postnas}

# Paragraphs that read as prose, each on one line; headings, tables, listings and commands are left out.
prose() {
    LC_ALL=C awk '
        BEGIN { RS = ""; FS = "\n" }
        {
            text = $0
            gsub(/\302\240/, " ", text)
            gsub(/[ \t\r\n\f]+/, " ", text)
            sub(/^ /, "", text)
            sub(/ $/, "", text)
            letters = text
            gsub(/[^A-Za-z ,.]/, "", letters)
            if (split(text, word, " ") >= 12 && length(letters) >= 0.92 * length(text) && text ~ /[.!?:)"]$/)
                printf "%s\n\n", text
        }'
}

# get PACKAGE: its .deb in the cache, downloaded when it is not there.
get() {
    compgen -G "$cache/$1_*.deb" >/dev/null && return
    echo "fetch-english: downloading $1"
    local aside
    aside=$(mktemp -d "$cache/fetch.XXXXXX")
    if ! (cd "$aside" && apt-get download -qq "$1" 2>"$aside/log"); then
        sed 's/^/    /' "$aside/log" >&2
        rm -rf "$aside"
        fail "apt-get could not download $1; run apt-get update first, and check that there is a network"
    fi
    mv "$aside"/*.deb "$cache/"
    rm -rf "$aside"
}

[ -x "$postnas" ] || fail "$postnas is not there; build it first: cmake --preset release && cmake --build build"
[ -f "$model/tokenizer.json" ] || fail "$model holds no tokenizer.json; data/fetch-smollm2.sh makes such a directory"
for tool in apt-get dpkg-deb awk zcat; do command -v $tool >/dev/null || fail "$tool is not installed"; done

mkdir -p "$cache"
cache=$(cd "$cache" && pwd)
if [ -f "$out/SOURCES" ]; then
    echo "fetch-english: $out is there already"
else
    work=$(mktemp -d "$(dirname "$cache")/english.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    while read -r split package file; do
        [ -n "$split" ] || continue
        get "$package"
        deb=$(ls "$cache/$package"_*.deb | tail -n 1)
        mkdir -p "$work/$split"
        dpkg-deb --fsys-tarfile "$deb" | tar -xO "./$file" | zcat --force | prose >"$work/$split/$package.txt" ||
            fail "$(basename "$deb") does not hold $file; has the package changed?"
        printf '%-8s %-22s %-18s %s\n' "$split" "$package" "$(dpkg-deb -f "$deb" Version)" "$file" >>"$work/SOURCES"
    done <<<"$books"
    mkdir "$work/shards"
    for split in train search heldout; do
        files=()
        while read -r s package _; do [ "$s" = "$split" ] && files+=("$work/$split/$package.txt"); done <"$work/SOURCES"
        "$postnas" data --tokenizer "$model" --out "$work/$split.set" --split "$split" --format text "${files[@]}" >/dev/null
        mv "$work/$split.set/$split" "$work/shards/$split"
    done
    mv "$work/SOURCES" "$work/shards/"
    [ ! -e "$out" ] || fail "$out exists and is not what this script made; name another directory"
    mkdir -p "$(dirname "$out")"
    mv "$work/shards" "$out"
fi
cat "$out/SOURCES"
for split in train search heldout; do
    line=$("$postnas" data --check "$out/$split" | sed -n 2p)
    echo "$line"
    read -r _ _ _ tokens _ <<<"$line"
    [ "$tokens" -ge "${at_least[$split]}" ] || fail "$split holds $tokens tokens; at least ${at_least[$split]} are wanted"
done
