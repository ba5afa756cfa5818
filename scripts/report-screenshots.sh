#!/usr/bin/env bash
# Pictures of a report as a browser shows it: light and dark, wide and narrow, and as printed. Needs Chromium
# (apt-get install chromium) and a built postnas.
#
#     scripts/report-screenshots.sh RUN|RESULT.json OUT        # OUT/{light,dark,narrow,narrow-dark}.png, print.pdf
#
# Fails when the page is wider than the narrow window.
set -euo pipefail
case ${1-} in -h | --help) sed -n '2,7s/^# \{0,1\}//p' "$0"; exit 0 ;; esac
[ $# -eq 2 ] || { echo "usage: $0 RUN|RESULT.json OUT" >&2; exit 2; }
postnas=$(dirname "$0")/../build/postnas
mkdir -p "$2"
out=$(cd "$2" && pwd)
"$postnas" report "$1" "$out/report.html"

browse() { # options...
    chromium --headless --no-sandbox --disable-gpu --hide-scrollbars --user-data-dir="$out/.profile" "$@" 2>> "$out/.log"
}
height() { # window width: the page's height in it, and that it is not wider
    sed 's,</body>,<script>document.title=innerWidth+" "+document.documentElement.scrollWidth+" "+document.documentElement.scrollHeight</script></body>,' \
        "$out/report.html" > "$out/.measured.html"
    browse --window-size="$1,900" --dump-dom "file://$out/.measured.html" | sed -n 's,.*<title>\([0-9 ]*\)</title>.*,\1,p'
}
shoot() { # name, width, theme (0 dark, 1 light)
    local inner page high
    read -r inner page high < <(height "$2")
    [ "$page" -le "$inner" ] || { echo "$1: the page is $page wide in a window of $inner" >&2; exit 1; }
    browse --window-size="$2,$((high + 20))" --blink-settings=preferredColorScheme="$3" --screenshot="$out/$1.png" \
        "file://$out/report.html"
    echo "$out/$1.png: $2 x $high"
}
shoot light 1200 1
shoot dark 1200 0
shoot narrow 500 1 # narrower windows than 500 need a phone's emulation
shoot narrow-dark 500 0
browse --no-pdf-header-footer --print-to-pdf="$out/print.pdf" "file://$out/report.html"
echo "$out/print.pdf"
rm -rf "$out/.profile" "$out/.log" "$out/.measured.html"
