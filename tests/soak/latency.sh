#!/usr/bin/env bash
# ./dev latency: how old pictures are when their last packet has been given to the system, for each kind of source that needs no camera,
# and how soon the first picture comes after a rest.
# SECONDS_EACH (20) is how long each is watched, BUILD (release) which build: release, or debug for the one that tests use.
set -euo pipefail
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../.."
build=${BUILD:-release} seconds=${SECONDS_EACH:-20} port=${PORT:-18080}
bin=${CARGO_TARGET_DIR:-$PWD/target}/$build
case $build in
  release) cargo build --release --workspace --locked ;;
  debug) cargo build --workspace --locked ;;
  *) echo "BUILD is release or debug, not $build" >&2; exit 2 ;;
esac
folder=$(mktemp -d)
agent=
trap '[ -z "$agent" ] || kill "$agent" 2>/dev/null || true; rm -r "$folder"' EXIT
cp tests/rpicam-vid-stand-in "$folder/rpicam"
ffmpeg -v error -f lavfi -i testsrc2=size=640x480:rate=30 -t 20 -c:v libx264 -bf 0 -g 60 -profile:v baseline -pix_fmt yuv420p -f h264 "$folder/film.h264"
cp "$folder/film.h264" "$folder/rpicam.film"

# The smallest bucket's end, in ms, that so much of the pictures do not exceed.
quantiles() {
  awk 'BEGIN { n = 0 } /^peercam_picture_latency_seconds_bucket.*quality="high"/ { match($0, /le="[^"]*"/); end[n] = substr($0, RSTART + 4, RLENGTH - 5); sum[n++] = $NF }
    END { if (n == 0 || sum[n-1] == 0) { print "no picture was sent" > "/dev/stderr"; exit 1 }
      for (q = 0; q < 2; q++) for (i = 0; i < n; i++) if (sum[i] >= (q ? 0.99 : 0.5) * sum[n-1]) {
        printf "%s | ", (end[i] == "+Inf" ? "above 1000" : end[i] * 1000); break }
      printf "%d |\n", sum[n-1] }'
}

# start LINES: an agent with one camera.
start() {
  mkdir -p "$folder/state"
  printf '[device]\nstate_dir = "%s"\n[[camera]]\nname = "card"\nbitrate_kbps = 1000\n%b\n[broker]\nurl = "off"\n[network]\nudp_port = %s\n[http]\nlisten = "127.0.0.1:%s"\n' \
    "$folder/state" "$1" "$((port + 1))" "$port" >"$folder/peercam.toml"
  "$bin/peercam" run --config "$folder/peercam.toml" >"$folder/log" 2>&1 &
  agent=$!
  for _ in $(seq 100); do curl -fsS "http://127.0.0.1:$port/healthz" >/dev/null 2>&1 && return; sleep 0.1; done
  cat "$folder/log" >&2
  exit 1
}

stop() {
  kill "$agent"
  wait "$agent" || true
  agent=
}

# watch SECONDS: one viewer; its report goes to a file.
watch() {
  "$bin/peercam-probe" --http "http://127.0.0.1:$port" --seconds "$1" --json >"$folder/probe" 2>&1 ||
    { cat "$folder/log" "$folder/probe" >&2; exit 1; }
}

# row NAME LINES: one source, watched by one viewer.
row() {
  start "$2"
  watch "$seconds"
  printf '| %s | ' "$1"
  curl -fsS "http://127.0.0.1:$port/metrics" | quantiles
  stop
}

# wakes NAME IDLE LINES: how soon somebody sees a picture who comes when nobody has watched for long enough that the camera rests or is closed.
wakes() {
  start "idle = \"$2\"\n$3"
  local found=
  for _ in 1 2 3; do
    for _ in $(seq 300); do
      curl -fsS "http://127.0.0.1:$port/metrics" | grep -q '^peercam_camera_resting{stream="card",quality="high"} 1' && break
      sleep 0.1
    done
    watch 2
    found+=" $(sed -n 's/.*"hello_to_key_ms": *\([0-9][0-9]*\).*/\1/p' "$folder/probe" | head -n 1)"
  done
  echo "| $1 | \`$2\` |$found |"
  stop
}

printf '| source | p50, at most ms | p99, at most ms | pictures |\n| --- | --- | --- | --- |\n'
row "pattern, encoded in software" 'source = "pattern"\nsize = "640x480"\nfps = 30'
row "file" "source = \"file\"\npath = \"$folder/film.h264\""
row "rpicam (stand-in), raw, encoded in software" "source = \"rpicam\"\ncommand = \"$folder/rpicam\"\nencoder = \"software\"\nsize = \"640x480\"\nfps = 30\nidle = \"run\""
row "rpicam (stand-in), H.264" "source = \"rpicam\"\ncommand = \"$folder/rpicam\"\nformat = \"h264\"\nsize = \"640x480\"\nfps = 30\nidle = \"run\""

printf '\n| first picture after a rest | idle | ms, three times |\n| --- | --- | --- |\n'
card='source = "pattern"\nsize = "640x480"\nfps = 30'
rpicam="source = \"rpicam\"\ncommand = \"$folder/rpicam\"\nencoder = \"software\"\nsize = \"640x480\"\nfps = 30"
wakes "pattern" rest "$card"
wakes "rpicam (stand-in), encoded in software" rest "$rpicam"
wakes "rpicam (stand-in), encoded in software" close "$rpicam"
