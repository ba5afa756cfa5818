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

name=english
. "$(dirname "$0")/debian-prose.sh"

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

need apt-get dpkg-deb awk zcat
if [ -f "$out/SOURCES" ]; then
    echo "fetch-english: $out is there already"
else
    work=$(mktemp -d "$(dirname "$cache")/english.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    while read -r split package file; do
        [ -n "$split" ] || continue
        get "$package"
        mkdir -p "$work/$split"
        dpkg-deb --fsys-tarfile "$deb" | tar -xO "./$file" | zcat --force | prose >"$work/$split/$package.txt" ||
            fail "$(basename "$deb") does not hold $file; has the package changed?"
        printf '%-8s %-22s %-18s %s\n' "$split" "$package" "$(dpkg-deb -f "$deb" Version)" "$file" >>"$work/SOURCES"
    done <<<"$books"
    shards "$work" ""
fi
show
