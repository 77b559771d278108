#!/bin/bash
# Runs in the machine, after init: sets it up, runs the test that /run/vm/env names, powers off.
# The test's figures go to /run/vm/said, its status to /run/vm/status; whatever the programs wrote is kept beside them.
# shellcheck source=/dev/null
. /run/vm/env
export PATH=/run/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin HOME=/run LC_ALL=C
cd /run/vm || exit

ip link set lo up
# In memory: run from the host's /, programs would wait for it page by page, at moments that are measured.
mkdir /run/bin && cp "$BIN"/{peercam,peercam-probe,uvcip,vmcheck} /run/bin/
mkdir -p /lib/modules && mount --bind "$MODULES" /lib/modules

# say WORDS: a line for people.
say() {
  echo "$*"
  echo "$*" >> said
}

fail() {
  say "FAILED: $*"
  exit 1
}

# wait_for SECONDS WHAT COMMAND...: polls until the command succeeds, every PAUSE seconds; fails in words if it never does.
wait_for() {
  local until=$((SECONDS + $1)) what=$2
  shift 2
  until "$@"; do
    [ "$SECONDS" -lt "$until" ] || fail "no $what"
    pause "${PAUSE:-0.05}"
  done
}

# pause SECONDS: without starting a process, which is slow here.
mkfifo /run/never
exec {NEVER}<> /run/never
pause() {
  read -r -t "$1" -u "$NEVER" || true
}

# The camera's node: sets NODE.
find_camera() {
  local name
  for name in /sys/class/video4linux/*/name; do
    [ -e "$name" ] || continue
    # A camera has two nodes; the one with index 0 gives pictures, the other metadata. It may go while it is looked at.
    { [[ $(<"$name") == "Test camera"* ]] && [ "$(<"${name%name}index")" = 0 ]; } 2> /dev/null || continue
    NODE=/dev/$(basename "${name%/name}")
    [ -c "$NODE" ] && return
  done
  NODE=
  return 1
}

no_camera() {
  ! find_camera
}

# start_camera [FILM [FPS]]: plugs in a camera that shows the film; sets NODE. `echo unplug >&"$CAMERA"` and `echo plug >&"$CAMERA"` follow.
start_camera() {
  modprobe -a vhci_hcd uvcvideo || fail "the kernel's modules do not load"
  mkfifo /run/camera.in
  uvcip camera "${1:-$FILM}" "$FILM_SIZE" "${2:-$FILM_FPS}" < /run/camera.in > camera.log 2>&1 &
  exec {CAMERA}> /run/camera.in
  echo plug >&"$CAMERA"
  wait_for 60 "camera after it was plugged in" find_camera
  say "camera at $NODE"
}

# start_vivid PLANES: the kernel's test camera, single-planar (1) or multi-planar (2), and the encoder likewise; sets NODE.
start_vivid() {
  local multiplanar=0
  [ "$1" = 1 ] || multiplanar=1
  modprobe vivid n_devs=1 node_types=0x1 "multiplanar=$1" num_inputs=1 input_types=0 vid_cap_nr=20 || fail "vivid does not load"
  modprobe vicodec "multiplanar=$multiplanar" || fail "vicodec does not load"
  NODE=/dev/video20
  wait_for 60 "vivid's node" [ -c "$NODE" ]
}

# start_agent DEVICE [LINE...]: a broker, and peercam on it with one camera: a device node, or `first` for the first one found.
# The camera can't change its bit rate. The low one that the agent is told keeps pictures from being held back here, where
# the emulated processors' jitter looks like a narrow path; congestion has tests of its own.
start_agent() {
  local device=
  [ "$1" = first ] || device="device = \"$1\""
  shift
  cat > /run/mosquitto.conf << END
listener 1883 127.0.0.1
allow_anonymous true
persistence false
END
  cat > /run/peercam.toml << END
[device]
name = "guest"
state_dir = "/run/peercam"
[[camera]]
name = "camera"
source = "v4l2"
$device
$(printf '%s\n' "$@")
[unsigned]
methods = ["camera.set"]
[broker]
url = "tcp://127.0.0.1:1883"
END
  mkdir -p /run/peercam
  if ! broker_listens; then
    mosquitto -c /run/mosquitto.conf > mosquitto.log 2>&1 &
    wait_for 60 "broker on port 1883" broker_listens
    # Every status with the time it came, in seconds.
    mosquitto_sub -t 'peercam/v1/+/status' -F '%U %p' > statuses.log 2> mosquitto_sub.log &
  fi
  peercam run --config /run/peercam.toml > peercam.log 2>&1 &
  AGENT=$!
  wait_for 60 "live camera in the agent's status" is_live
}

# The status of an agent that has ended tells how its cameras were.
is_live() {
  status_says '"online":true' && newest_status_says '"state":"live"'
}

# stop_agent: as the system does it.
stop_agent() {
  kill "$AGENT"
  wait "$AGENT" || fail "the agent ended with $?: $(tail -n 3 peercam.log)"
  wait_for 60 "status of an agent that has ended" newest_status_says '"online":false'
}

newest_status_says() {
  [[ $(tail -n 1 statuses.log) == *"$1"* ]]
}

# ask METHOD PARAMS: calls a method over MQTT; sets REPLY to what comes back, whatever it is. The same request id would get the same
# reply again.
ASKED=0
ask() {
  local id
  ASKED=$((ASKED + 1))
  id=$(mosquitto_sub -C 1 -W 20 -t 'peercam/v1/+/status' -F %t) || fail "there is no status"
  id=${id#peercam/v1/}
  id=${id%/status}
  REPLY=$(mosquitto_rr -V mqttv5 -W 30 -t "peercam/v1/$id/from/operator" -e "peercam/v1/$id/to/operator" \
    -m "{\"jsonrpc\":\"2.0\",\"id\":$ASKED,\"method\":\"$1\",\"params\":$2}" 2>&1) || fail "$1 is not answered: $REPLY"
}

timed_more_than() {
  [ "$(scrape peercam_picture_latency_seconds_count)" -gt "$1" ]
}

# latency WHAT: tells how old half, and 99 of 100, of its pictures were at most when their last packet was sent.
latency() {
  local line http end=0 ends=() counts=() share index said=
  wait_for 60 "thirty pictures at the viewer" timed_more_than 30
  exec {http}<> /dev/tcp/127.0.0.1/8080 || fail "the agent's metrics page cannot be reached"
  printf 'GET /metrics HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n' >&"$http"
  while read -r line; do
    [[ $line == peercam_picture_latency_seconds_bucket*'quality="high"'* ]] || continue
    line=${line%$'\r'}
    end=${line#*le=\"}
    ends+=("${end%%\"*}")
    counts+=("${line##* }")
  done <&"$http"
  exec {http}>&-
  [ "${#counts[@]}" -gt 0 ] && [ "${counts[-1]}" -gt 0 ] || fail "no picture's latency was counted"
  for share in 50 99; do
    for index in "${!counts[@]}"; do
      if [ $((counts[index] * 100)) -ge $((share * counts[-1])) ]; then
        said+=" p$share ${ends[index]} s"
        break
      fi
    done
  done
  say "$1: from capture to the last packet at most$said, of ${counts[-1]} pictures, in this emulated machine"
}

broker_listens() {
  (: < /dev/tcp/127.0.0.1/1883) 2> /dev/null
}

# status_says TEXT: whether the newest status does.
status_says() {
  kill -0 "$AGENT" 2> /dev/null || fail "the agent has ended: $(tail -n 3 peercam.log)"
  newest_status_says "$1"
}

# start_viewer: somebody watches, and saves what they see.
start_viewer() {
  peercam-probe --broker tcp://127.0.0.1:1883 --seconds 600 --json --save /run/saved.h264 > probe.json 2> probe.log &
  VIEWER=$!
}

# How much has been saved, in bytes: pictures are written as they come, but for the last few kilobytes. Sets SAVED.
read_saved() {
  kill -0 "$VIEWER" 2> /dev/null || fail "the viewer has left: $(grep '"failed"' probe.json; tail -n 3 probe.log)"
  SAVED=$(stat -c %s /run/saved.h264 2> /dev/null || echo 0)
}

saved_more_than() {
  read_saved
  [ "$SAVED" -gt "$1" ]
}

# scrape FIGURE: its value on the agent's metrics page, without the fraction; 0 where it is not there yet. A camera's high rung is told first.
scrape() {
  local line value= http
  exec {http}<> /dev/tcp/127.0.0.1/8080 || fail "the agent's metrics page cannot be reached"
  printf 'GET /metrics HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n' >&"$http"
  while read -r line; do
    [[ -n $value || $line != "$1"* ]] || value=${line##* }
  done <&"$http"
  exec {http}>&-
  value=${value%$'\r'}
  value=${value:-0}
  echo "${value%.*}"
}

# stop_viewer: it leaves; fails if it lost its session before.
stop_viewer() {
  kill -INT "$VIEWER"
  wait "$VIEWER" || fail "the viewer: $(grep '"failed"' probe.json; tail -n 3 probe.log)"
  grep -q '"failed": *null' probe.json || fail "the viewer did not stay: $(grep '"failed"' probe.json)"
}

# elapsed FROM TO: the seconds between two values of EPOCHREALTIME, to the millisecond.
elapsed() {
  local micros=$((${2/./} - ${1/./}))
  printf '%d.%03d' $((micros / 1000000)) $((micros / 1000 % 1000))
}

start=$EPOCHREALTIME
# shellcheck source=/dev/null
( . "$HERE/$TEST.sh" )
echo $? > status
dmesg > dmesg.log
echo "vm: the test itself took $(elapsed "$start" "$EPOCHREALTIME") s"
sync
"$BUSYBOX" poweroff -f
