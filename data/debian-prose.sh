# Text of Debian packages as token shards: what data/fetch-english.sh and data/fetch-prose.sh have in common. To be
# sourced by a script with the arguments MODEL_DIR [OUT_DIR [CACHE_DIR]] when `name` is set, that of the shards:
#
#     name=english
#     . "$(dirname "$0")/debian-prose.sh"
#
# It sets model, out, cache and postnas. Messages end the script with exit status 2.

fail() { echo "fetch-$name: $*" >&2; exit 2; }

[ $# -ge 1 ] || fail "name the model directory whose tokenizer to use: data/fetch-$name.sh models/smollm2-135m"
root=$(cd "$(dirname "$0")/.." && pwd)
model=$1
out=${2:-$root/shards/$name}
cache=${3:-$(dirname "$out")/.cache/$name}
postnas=${POSTNAS:-$root/build/postnas}

# need TOOL...: the program, a tokenizer, these tools, and a folder for packages.
need() {
    local tool
    [ -x "$postnas" ] || fail "$postnas is not there; build it first: cmake --preset release && cmake --build build"
    [ -f "$model/tokenizer.json" ] || fail "$model holds no tokenizer.json; data/fetch-smollm2.sh makes such a directory"
    for tool; do command -v "$tool" >/dev/null || fail "$tool is not installed"; done
    mkdir -p "$cache"
    cache=$(cd "$cache" && pwd)
}

# get PACKAGE: its .deb in the cache, downloaded when it is not there; its path is in deb.
get() {
    if ! compgen -G "$cache/$1_*.deb" >/dev/null; then
        echo "fetch-$name: downloading $1"
        local aside
        aside=$(mktemp -d "$cache/fetch.XXXXXX")
        if ! (cd "$aside" && apt-get download -qq "$1" 2>"$aside/log"); then
            sed 's/^/    /' "$aside/log" >&2
            rm -rf "$aside"
            fail "apt-get could not download $1; run apt-get update first, and check that there is a network"
        fi
        mv "$aside"/*.deb "$cache/"
        rm -rf "$aside"
    fi
    deb=$(ls "$cache/$1"_*.deb | tail -n 1)
}

# shards WORK SUFFIX OPTION...: OUT_DIR from WORK/SOURCES and WORK/SPLIT/PACKAGE.txt with that suffix; options go to
# postnas data.
shards() {
    local work=$1 suffix=$2 split s package files
    mkdir "$work/shards"
    for split in train search heldout; do
        files=()
        while read -r s package _; do [ "$s" = "$split" ] && files+=("$work/$split/$package.txt$suffix"); done <"$work/SOURCES"
        "$postnas" data --tokenizer "$model" --out "$work/$split.set" --split "$split" --format text "${@:3}" "${files[@]}" \
            >/dev/null
        mv "$work/$split.set/$split" "$work/shards/$split"
    done
    mv "$work/SOURCES" "$work/shards/"
    [ ! -e "$out" ] || fail "$out exists and is not what this script made; name another directory"
    mkdir -p "$(dirname "$out")"
    mv "$work/shards" "$out"
}

# show: what is in OUT_DIR; each split holds at_least[split] tokens, an array of the caller's.
show() {
    local split line tokens
    cat "$out/SOURCES"
    for split in train search heldout; do
        line=$("$postnas" data --check "$out/$split" | sed -n 2p)
        echo "$line"
        read -r _ _ _ tokens _ <<<"$line"
        [ "$tokens" -ge "${at_least[$split]}" ] ||
            fail "$split holds $tokens tokens; at least ${at_least[$split]} are wanted"
    done
}
