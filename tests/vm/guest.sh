#!/bin/bash
# Runs in the machine, after init: sets it up, runs the test that /run/vm/env names, powers off.
# The test's figures go to /run/vm/said, its status to /run/vm/status; whatever the programs wrote is kept beside them.
# shellcheck source=/dev/null
. /run/vm/env
export PATH=$BIN:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin HOME=/run LC_ALL=C
cd /run/vm || exit

ip link set lo up
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

# wait_for SECONDS WHAT COMMAND...: polls until the command succeeds; fails in words if it never does.
wait_for() {
  local until=$((SECONDS + $1)) what=$2
  shift 2
  until "$@"; do
    [ "$SECONDS" -lt "$until" ] || fail "no $what"
    pause 0.05
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
    [[ $(<"$name") == "Test camera"* ]] || continue
    # A camera has two nodes; the one with index 0 gives pictures, the other metadata.
    [ "$(<"${name%name}index")" = 0 ] || continue
    NODE=/dev/$(basename "${name%/name}")
    [ -c "$NODE" ] && return
  done
  NODE=
  return 1
}

no_camera() {
  ! find_camera
}

# start_camera: plugs in a camera that shows the film; sets NODE. `echo unplug >&"$CAMERA"` and `echo plug >&"$CAMERA"` follow.
start_camera() {
  modprobe -a vhci_hcd uvcvideo || fail "the kernel's modules do not load"
  mkfifo /run/camera.in
  uvcip camera "$FILM" "$FILM_SIZE" "$FILM_FPS" < /run/camera.in > camera.log 2>&1 &
  exec {CAMERA}> /run/camera.in
  echo plug >&"$CAMERA"
  wait_for 60 "camera after it was plugged in" find_camera
  say "camera at $NODE"
}

start=$EPOCHREALTIME
# shellcheck source=/dev/null
( . "$HERE/$TEST.sh" )
echo $? > status
dmesg > dmesg.log
echo "vm: $TEST took from $start to $EPOCHREALTIME"
sync
"$BUSYBOX" poweroff -f
