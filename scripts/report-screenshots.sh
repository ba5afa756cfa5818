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
    chromium --headless --no-sandbox --disable-gpu --hide-scrollbars --allow-file-access-from-files \
        --user-data-dir="$out/.profile" "$@" 2>> "$out/.log"
}
frame() { # width, height: a window narrower than a browser's own can be
    printf '<body style="margin:0"><iframe src="report.html" style="border:0;width:%dpx;height:%dpx" onload="%s"></iframe></body>' \
        "$1" "$2" 'let d=this.contentDocument.documentElement;document.title=d.scrollWidth+&quot; &quot;+d.scrollHeight' > "$out/.frame.html"
}
shoot() { # name, width, theme (0 dark, 1 light)
    local wide high
    frame "$2" 900
    read -r wide high < <(browse --window-size=1400,900 --dump-dom "file://$out/.frame.html" | sed -n 's,.*<title>\([0-9 ]*\)</title>.*,\1,p')
    [ "$wide" -le "$2" ] || { echo "$1: the page is $wide wide in a window of $2" >&2; exit 1; }
    frame "$2" "$high"
    browse --window-size="$(($2 > 500 ? $2 : 500)),$((high + 100))" --blink-settings=preferredColorScheme="$3" \
        --screenshot="$out/$1.png" "file://$out/.frame.html"
    echo "$out/$1.png: $2 x $high"
}
shoot light 1200 1
shoot dark 1200 0
shoot narrow 360 1
shoot narrow-dark 360 0
browse --no-pdf-header-footer --print-to-pdf="$out/print.pdf" "file://$out/report.html"
echo "$out/print.pdf"
rm -rf "$out/.profile" "$out/.log" "$out/.frame.html"
