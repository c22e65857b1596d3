#!/usr/bin/env bash
# Looks at the page of `cart-serve` in headless Chromium: answers, players, the walk, text that is no HTML.
#
# check_page.sh SERVE INDEX MEDIA QUERY OUT: the program, an index, its media, a query, and a folder for what was seen.
set -euo pipefail
serve=$1 index=$2 media=$3 query=$4 out=$5
browser=$(command -v chromium || command -v chromium-browser || command -v google-chrome)
mkdir -p "$out"

"$serve" --index "$index" --media "$media" --listen 127.0.0.1:0 >"$out/serve.log" 2>&1 &
service=$!
trap 'kill "$service" 2>/dev/null || true' EXIT
for _ in $(seq 100); do
  address=$(grep -o 'http://127.0.0.1:[0-9]*' "$out/serve.log" || true)
  test -n "$address" && break
  kill -0 "$service" || { cat "$out/serve.log"; exit 1; }
  sleep 0.2
done

escape() { # for a link: all bytes but letters and digits
  local LC_ALL=C text=$1 at
  for ((at = 0; at < ${#text}; at++)); do
    case ${text:at:1} in [a-zA-Z0-9]) printf %s "${text:at:1}" ;; *) printf '%%%02X' "'${text:at:1}" ;; esac
  done
}
look() { # query, name
  local flags=(--headless --no-sandbox --disable-gpu --disable-dev-shm-usage --user-data-dir="$out/profile" --window-size=1280,1000)
  timeout 120 "$browser" "${flags[@]}" --virtual-time-budget=20000 --dump-dom "$address/?q=$(escape "$1")" >"$out/$2.html" 2>"$out/browser.log"
  timeout 120 "$browser" "${flags[@]}" --virtual-time-budget=20000 --screenshot="$out/$2.png" "$address/?q=$(escape "$1")" 2>>"$out/browser.log"
  test -s "$out/$2.png"
}
count() { # name, pattern
  { grep -oE -- "$2" "$out/$1.html" || true; } | wc -l
}
holds() { # name, text
  grep -qF -- "$2" "$out/$1.html" || { echo "$out/$1.html has no $2" >&2; exit 1; }
}

look "$query" answers
holds answers 'class="card chosen"'
holds answers 'coarse cluster'
holds answers 'unique token'
holds answers 'candidates; identifiers of'
cards=$(count answers '<article class="card')
test "$cards" -ge 10 || { echo "$cards answers" >&2; exit 1; }
shown=$(count answers '<(img|audio|video) [^>]*src="media/')
test "$shown" -ge "$cards" || { echo "$shown pictures and players for $cards answers" >&2; exit 1; }

# Text stays text.
look '<img src=x onerror="document.title=1">' text
holds text '&lt;img src=x onerror='
if grep -qF '<img src=x' "$out/text.html"; then echo "a query became HTML" >&2; exit 1; fi

kill -TERM "$service"
wait "$service"
grep -qx 'ended' "$out/serve.log"
trap - EXIT
echo "$cards answers, $shown pictures and players; screenshots in $out"
