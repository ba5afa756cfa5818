#!/usr/bin/env bash
# English prose as token shards for a GPU: handbooks and manuals to train on, other texts for a search to look at and to
# hold out.
#
#     data/fetch-prose.sh MODEL_DIR [OUT_DIR] [CACHE_DIR]      default: shards/prose, and .cache/prose beside it
#
# The books are Debian documentation packages, fetched by apt-get download (no root, nothing is installed) and cut down
# to their paragraphs of prose, each of which is kept once, in the first split that has it; MODEL_DIR is where the
# tokenizer is. What is there already is not fetched again. OUT_DIR/SOURCES names every package with its version. A
# package that is not the one this table was made with (another version, say) is used, and named. Needs apt-get,
# dpkg-deb, awk, sha256sum and a built postnas (POSTNAS=path to use another than build/postnas).
set -euo pipefail

# split  package  how  which files in it  SHA-256 of the package
books="
heldout debian-faq                text usr/share/doc/debian/FAQ/debian-faq.en.txt.gz                            427426e0cfa6888622fc1d72631071cb4b5a1f86ccde722e7820bcef284de5d0
heldout jargon-text               text usr/share/doc/jargon-text/jargon.txt.gz                                  17d05997e30eb3d5d6713929b8e2f81b63a5f50073858ad2a06701c71f54dcdb
search  debian-history            text usr/share/doc/debian-history/docs/project-history.en.txt.gz              ae364cdfd075bf6a08ca8f5105b44db7093e3b201c95d3b70a863b8849c6a082
search  doc-debian                text usr/share/doc/debian/constitution.txt.gz                                 b9bff49f22b334cb6fedc071d81669e72cc2fa0dcd65e110785f69d9941f2773
search  git-doc                   text usr/share/doc/git-doc/user-manual.txt                                    3c89668a11053a6bafade3de1f611f4613db31e082af63f43d8c5b69ad8795ec
search  debian-handbook           html usr/share/doc/debian-handbook/html/en-US/*.html                          3d5dbeac1f1afc9c094eab9d0f701f6ecff99c4927d5a4794cf6c85678134faa
train   anarchism                 html usr/share/doc/anarchism/html/*.html                                      cf21c10948b00e923c62eb31c39a3390413fa26c5ee0e3b925feb0ec7fe42948
train   sqlite3-doc               html usr/share/doc/sqlite3/*.html                                             466e30d7066e2641fa13e56bc662a2ad521b8cc9c17dde9c9dac3d4f105e32f2
train   apache2-doc               html usr/share/doc/apache2-doc/manual/en/*.html                               a7b3d1131c1c63dbf9999b28e75f9a133d30f70492b419936bd51759ac77a01f
train   python3.11-doc            html usr/share/doc/python3.11/html/*.html                                     5b3594189d6ef9a6963ce0347fd307a1cc67620ad697e144db366070e2e146be
train   postgresql-doc-15         html usr/share/doc/postgresql-doc-15/html/*.html                              4c44bf2c599f208b3f46454a6cf7a72e25ec46ff74d37b59dd31ad76b00eebb7
train   llvm-15-doc               html usr/share/doc/llvm-15-doc/html/*.html                                    613d2f6c303411508b28775269d4f6c35498905d0f3e2dd39f862191a1faf564
train   perl-doc                  pod  usr/share/perl/*.pod                                                     f4269cff4576d6f02a6756df842988e58451c7e945b08517dd235531b24e48f8
train   linux-doc-6.1             html usr/share/doc/linux-doc-6.1/html/*.html                                  d1d1b5a602f0d439ecc39e713e044bf2df30d839fb4bf8a7b859ba3273c47993
train   shorewall-doc             html usr/share/doc/shorewall-doc/html/*.htm*                                  adbc9bdfa9393e0f795837019c4267da912c672961d454fcacb519907576480b
train   python-django-doc         html usr/share/doc/python-django-doc/html/*.html                              87307f067916df72e17180d35b7cde5c7ea6080336cda518efd7f6e66988a7ca
train   python-sqlalchemy-doc     html usr/share/doc/python-sqlalchemy-doc/html/*.html                          8805c3167ef75278ac6fd58ed9856321c2b2e3a7e441edba84b2eb955216d0fd
train   twisted-doc               html usr/share/doc/twisted-doc/html/*.html                                    3bc8d4e8965911289e4fb0efe017a56b48f07f1ae450b7071c432aeb41559142
train   bind9-doc                 html usr/share/doc/bind9-doc/arm/*.html                                       7a3282f365576e58378b242ea7e8bd65ce227e94dd4abe8acbb5874873e7265e
train   kea-doc                   html usr/share/doc/kea/html/*.html                                            c3cb1d98d071000ceb0e7ddc036172f51e09ebd2f2fb1d342c770f810e3618f2
train   ada-reference-manual-2012 html usr/share/doc/ada-reference-manual-2012/aarm2012.html/*.html             7034cb223a819a11d99f7cf4d26643863ee2b89146905063885c8cc32887c311
train   db5.3-doc                 html usr/share/doc/db5.3-doc/*.html                                           436a0b88b1b0ba35333d5a0220dfa918ab0a3de72ac17116b446de56754d43bd
train   openjdk-17-doc            html usr/share/doc/openjdk-17-jre-headless/*.html                             3e04db24dbcb31d598774973998f1d8212e3424e288befbfef235077325f841d
train   erlang-doc                html usr/share/doc/erlang-doc/*.html                                          7d172cecfdd9c2930b27c776ad226ffcc84670375cf830c79ee41c6944e8a1c8
train   qtbase5-doc-html          html usr/share/qt5/doc/*.html                                                 e052497a7db970f002807e3543043c11e46135641b8284b0a419086ba64f5f47
train   qtdeclarative5-doc-html   html usr/share/qt5/doc/*.html                                                 1663410b595b7adeba3dc42e02b2adb593a6d62a6f520baa9f4609a72ba73767
train   python-scipy-doc          html usr/share/doc/python-scipy-doc/html/*.html                               a237fdcef1675622f1a5d8a291c64feba140615130ee625554f94772d4ea3ad7
train   python-sklearn-doc        html usr/share/doc/python-sklearn-doc/html/*.html                             4e244556326064e87e7563e3e544c2288d44b5719db2d7b3a85c9a84ae93488d
train   python-pandas-doc         html usr/share/doc/python-pandas-doc/html/*.html                              4998405ff6b12432f46594963e95554ade1104705795428396345fca58d853f8
train   racket-doc                html usr/share/doc/racket/*.html                                              d50139b4bf806cd280bd18146ca2e7579cede5da23cc7f5c663044596af4e00f
train   maxima-doc                html usr/share/doc/maxima-doc/html/*.html                                     01a726b693a7e465a62040ac5ade4762194d7553524231d77cd1fcd4a69a75b9
train   libreoffice-help-en-us    html usr/share/libreoffice/help/en-US/*.html                                  8faa840285734d6cfe1ed25537b48f07e74bd6412e3917bf8e5f8a653f7b3712
train   wireshark-doc             html usr/share/doc/wireshark/*.html                                           fb7c5ba555b287cc39b2535e56b0fa0dd5f5edfe50e178e71df0f0f08baa01d5
train   ghc-doc                   html usr/share/doc/ghc-doc/html/*.html                                        a7c77e36c8906f82eef411ceeba13b7d663b7766a5ecc6659e3405889e0429c9
train   cppreference-doc-en-html  html usr/share/cppreference/doc/html/*.html                                   603e9b7ef33d08b957e287b2b1f429f2338bccf75144f91b7c9e51d3cb6a14e2
train   csound-doc                html usr/share/doc/csound-doc/html/*.html                                     02619a52e7a77c4495820fa134c1214b6ce3b5797e3065243f1b49e3b34c9179
train   neutron-doc               html usr/share/doc/neutron-doc/html/*.html                                    2012b7974cdb8e3d1b897d240d256edebeb70991f5a5fa90ad62845737a09844
train   cinder-doc                html usr/share/doc/cinder-doc/html/*.html                                     d62cdb276b017b9e602c96dc09bab8fcce7ab50c9be8ef9016acc3ec15fed749
train   nova-doc                  html usr/share/doc/nova-doc/html/*.html                                       47c62c5169b1fb3fce016b766f8d26d34b2f66fab796e4b31d7b3b907680e510
train   keystone-doc              html usr/share/doc/keystone-doc/html/*.html                                   84236b06fa2354b9f8e48495552dc8010661313fa70b3be713fab359ce727b6a
train   swig4.0-doc               html usr/share/doc/swig4.0-doc/Manual/*.html                                  78c215ed6955691adc9ca66fff4dce7d7adc2e24bfa6d7c5524ddfae36271888
train   pike8.0-doc               html usr/share/doc/pike8.0-doc/html/*.html                                    8211fd6a7f2097bef6a6407bbbcaf8ecd451a409e4a367a010baa77f64019af5
train   renpy-doc                 html usr/share/doc/renpy/html/*.html                                          f2ca90651fb65be4da04cf0840aee9c43769004890f49328fb5c1eccb1506d34
train   mame-doc                  html usr/share/doc/mame/singlehtml/*.html                                     4c9fdcbbaf51f61a2eee7018b54af10e493c4ff1a3adbacaf6b3291f4dd51854
train   debian-edu-doc-en         html usr/share/doc/debian-edu-doc-en/debian-edu-bookworm-manual.html          0a985aebd07dd69ea1d22c767c410fbca429e7c9fa378024bcaf4fedeb09506a
train   developers-reference      text usr/share/developers-reference/developers-reference.txt.gz               0dba82f6fa16e373f2a84ad07e7971aa9264ad2e7d2ae46b37edbc9c5fd57e2e
train   debian-policy             text usr/share/doc/debian-policy/policy.txt.gz                                ef9d01b625c3b87c3a845c2cd1b66f1a16e9240b2b9e5bee53472a00e8457a39
train   debian-reference-en       text usr/share/debian-reference/debian-reference.en.txt.gz                    9f31d3a17df505de09689ca255512ea58c1fc47c59bb1b0c7bf1c23362e9743f
train   maint-guide               text usr/share/doc/maint-guide/maint-guide.en.txt.gz                          762c8a400a36668d2eb814a3ba356b06488fd889dfce478eb11d5cfb189a47b5
"
declare -A at_least=([train]=15000000 [search]=131072 [heldout]=196608) # tokens

name=prose
. "$(dirname "$0")/debian-prose.sh"

# A paragraph on a line of its own, if it reads as English prose; headings, tables, listings and commands do not.
accept='
    function accept(text, letters, word) {
        gsub(/\302\240/, " ", text)
        gsub(/[ \t\r\n\f]+/, " ", text)
        sub(/^ /, "", text)
        sub(/ $/, "", text)
        if (text !~ /[.!?:)"]$/ || text !~ / (the|of|and|to|is|in|that) / || text ~ /[&]#?[a-z0-9]+;/) return
        letters = text
        gsub(/[^A-Za-z ,.]/, "", letters)
        if (split(text, word, " ") >= 12 && length(letters) >= 0.92 * length(text)) printf "%s\n\n", text
    }'

prose_of_text() {
    LC_ALL=C awk "$accept"'
        BEGIN { RS = ""; FS = "\n" }
        { accept($0) }'
}

# Text runs from one tag that breaks lines to the next; what such a tag holds that is not prose is passed over.
prose_of_html() {
    LC_ALL=C awk "$accept"'
        function flush() {
            if (length(text) > 40) {
                gsub(/&nbsp;|&#160;/, " ", text)
                gsub(/&quot;|&#34;|&ldquo;|&rdquo;|&#8220;|&#8221;/, "\"", text)
                gsub(/&#39;|&#x27;|&apos;|&lsquo;|&rsquo;|&#8216;|&#8217;/, "\047", text)
                gsub(/&mdash;|&#8212;|&ndash;|&#8211;/, "-", text)
                gsub(/&lt;/, "<", text)
                gsub(/&gt;/, ">", text)
                gsub(/&amp;/, "\\&", text)
                accept(text)
            }
            text = ""
        }
        BEGIN {
            RS = "<"
            split("p div li ul ol dl dd dt td th tr table h1 h2 h3 h4 h5 h6 body html section article blockquote " \
                  "br hr nav caption form center details summary figure footer header", list, " ")
            for (i in list) breaks[list[i]]
            split("script style pre head nav svg math", list, " ")
            for (i in list) hides[list[i]]
        }
        {
            end = index($0, ">")
            if (!end) next
            tag = tolower(substr($0, 1, end - 1))
            closes = sub(/^\//, "", tag)
            sub(/[^a-z0-9].*/, "", tag)
            if (tag in hides) {
                flush()
                if (closes) { if (hidden == tag) hidden = "" }
                else if (hidden == "" && $0 !~ /^[^>]*\/>/) hidden = tag
            }
            if (tag == "html") hidden = ""
            if (hidden != "") next
            if (tag in breaks) flush()
            text = text substr($0, end + 1)
        }
        END { flush() }'
}

# Plain old documentation: what marks a word up is taken off it.
prose_of_pod() {
    sed -e 's/[BCFILSX]<\([^<>]*\)>/\1/g' -e 's/^=.*//' | prose_of_text
}

# Writes every package's paragraphs to WORK/SPLIT/PACKAGE.txt, and WORK/SOURCES.
extract() {
    local work=$1 split package how files sha256
    while read -r split package how files sha256; do
        [ -n "$split" ] || continue
        get "$package"
        echo "$sha256  $deb" | sha256sum --check --status ||
            echo "fetch-prose: $(basename "$deb") is not the package that the published figures are from" >&2
        mkdir -p "$work/$split"
        dpkg-deb --fsys-tarfile "$deb" | tar -xO --wildcards "./$files" | zcat --force | "prose_of_$how" \
            >"$work/$split/$package.txt" || fail "$(basename "$deb") does not hold $files; has the package changed?"
        printf '%-8s %-26s %-22s %s\n' "$split" "$package" "$(dpkg-deb -f "$deb" Version)" "$files" >>"$work/SOURCES"
    done
}

need apt-get dpkg-deb awk zcat sha256sum
if [ -f "$out/SOURCES" ]; then
    echo "fetch-prose: $out is there already"
else
    work=$(mktemp -d "$(dirname "$cache")/prose.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    extract "$work" <<<"$books"
    files=()
    while read -r split package _; do files+=("$work/$split/$package.txt"); done <"$work/SOURCES"
    LC_ALL=C awk 'FNR == 1 { close(out); out = FILENAME ".once" }
                  length($0) && !seen[$0]++ { printf "%s\n\n", $0 > out }' "${files[@]}"
    shards "$work" .once --repair
fi
show
