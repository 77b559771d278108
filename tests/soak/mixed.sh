# shellcheck shell=bash
# shellcheck disable=SC2154 # work, bin, target and pids are common.sh's

# mixed MINUTES: a hundred viewers a minute come and go, every fifth group finds that the camera was gone, every seventh that the
# broker was. Afterwards nothing may have grown: memory by less than 1 MB an hour, no descriptor more, pictures no later.
mixed() {
  local port folder=$work/mixed round=0 end figures=$work/mixed/figures
  port=$(free_port)
  mkdir -p "$folder"
  ffmpeg -v error -f lavfi -i testsrc2=size=640x360:rate=30 -t 10 -c:v libx264 -profile:v baseline -bf 0 -g 30 -b:v 800k "$folder/film.h264"
  cp "$folder/film.h264" "$folder/camera.h264"
  printf 'listener %s 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\n' "$port" >"$folder/mosquitto.conf"
  mixed_broker() { PATH=$PATH:/usr/sbin mosquitto -c "$folder/mosquitto.conf" 2>/dev/null & broker_pid=$!; }
  mixed_broker
  cat >"$folder/peercam.toml" <<TOML
device.state_dir = "$folder/state"
http.listen = "off"
limits.viewers = 50
network.udp_port = 0
broker.url = "tcp://127.0.0.1:$port"
log.filter = "error"
[[camera]]
source = "file"
path = "$folder/camera.h264"
fps = 30
TOML
  "$bin/peercam" run --config "$folder/peercam.toml" 2>"$folder/log" &
  local pid=$!
  pids+=("$pid")
  sleep 2
  end=$((SECONDS + $1 * 60))
  while [ $SECONDS -lt $end ]; do
    round=$((round + 1))
    if [ $((round % 5)) = 0 ]; then
      : >"$folder/camera.h264"
      sleep 2
      cat "$folder/film.h264" >"$folder/camera.h264"
      sleep 3
    fi
    if [ $((round % 7)) = 0 ]; then
      kill "$broker_pid"
      wait "$broker_pid" || true
      sleep 2
      mixed_broker
      # The agent tries every 4 s; the probe looks for devices only for a moment.
      local patience=$((SECONDS + 20))
      until "$bin/peercam-probe" --broker "tcp://127.0.0.1:$port" --seconds 1 >/dev/null 2>&1; do
        [ $SECONDS -lt $patience ] || { echo "the agent did not come back to its broker"; break; }
      done
    fi
    "$bin/peercam-probe" --broker "tcp://127.0.0.1:$port" --json --viewers 20 --join-spread-ms 4000 --seconds 6 --seed "$round" \
      --settle-seconds 2 >"$folder/report.json" || { echo "round $round failed"; cat "$folder/report.json" "$folder/log"; kill "$broker_pid"; return 1; }
    # The last goodbyes are on their way.
    sleep 0.5
    python3 - "$folder/report.json" "$pid" "$SECONDS" >>"$figures" <<'PY'
import json, os, re, sys
report, pid, seconds = json.load(open(sys.argv[1])), sys.argv[2], sys.argv[3]
rss = re.search(r"VmRSS:\s+(\d+)", open(f"/proc/{pid}/status").read())[1]
print(seconds, rss, len(os.listdir(f"/proc/{pid}/fd")), report["latency_ms"]["p50"], report["hello_to_key_ms"]["p95"])
PY
  done
  kill "$pid" "$broker_pid"
  python3 - "$figures" <<'PY'
import statistics, sys
rows = [list(map(float, line.split())) for line in open(sys.argv[1])]
# Warm after a quarter: every path has been taken by then.
warm = rows[len(rows) // 4:]
slope, _ = statistics.linear_regression([row[0] for row in warm], [row[1] for row in warm])
mb_an_hour = slope * 3600 / 1000
first, last = warm[: len(warm) // 3], warm[-(len(warm) // 3):]
p50 = lambda part: statistics.median(row[3] for row in part)
joins = lambda part: statistics.median(row[4] for row in part)
print(f"{len(rows)} groups, {20 * len(rows)} viewers came and went")
print(f"memory: {warm[0][1]:.0f} KiB when warm, {warm[-1][1]:.0f} KiB at the end, {mb_an_hour:+.2f} MB an hour")
print(f"descriptors: {warm[0][2]:.0f} when warm, {warm[-1][2]:.0f} at the end")
print(f"capture to whole picture, median of p50: {p50(first):.2f} ms when warm, {p50(last):.2f} ms at the end")
print(f"hello to key frame, median of p95: {joins(first):.0f} ms when warm, {joins(last):.0f} ms at the end")
bad = [what for what, ok in [
    ("memory grows", mb_an_hour < 1), ("descriptors leak", warm[-1][2] <= warm[0][2]), ("pictures come later", p50(last) < 1.5 * p50(first) + 0.5),
] if not ok]
sys.exit(", ".join(bad) or 0)
PY
}
