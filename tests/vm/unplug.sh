# The camera is unplugged and plugged in again while somebody watches: the viewer stays, the status tells, the picture comes back.
# shellcheck shell=bash

start_camera
start_agent "$NODE"

peercam-probe --broker tcp://127.0.0.1:1883 --seconds 600 --json --save /run/saved.h264 > probe.json 2> probe.log &
PROBE=$!

# How much of the stream the viewer has saved, in bytes: the probe writes pictures as they come.
saved_bytes() {
  kill -0 "$PROBE" 2> /dev/null || fail "the viewer has left: $(grep '"failed"' probe.json; tail -n 3 probe.log)"
  SAVED=$(stat -c %s /run/saved.h264 2> /dev/null || echo 0)
}
saved_more_than() {
  saved_bytes
  [ "$SAVED" -gt "$1" ]
}

wait_for 60 "picture at the viewer" saved_more_than 200000
echo unplug >&"$CAMERA"
pulled=$EPOCHREALTIME
wait_for 60 "status that says the camera is lost" status_says '"state":"lost"'
say "unplugged: the status said so after $(elapsed "$pulled" "$EPOCHREALTIME") s: $(tail -n 1 statuses.log | grep -o '"reason":"[^"]*"')"
status_says '"reason":"' || fail "the status gives no reason: $(tail -n 1 statuses.log)"
wait_for 60 "end of the camera's node" no_camera

# What was under way arrives; once nothing has come for a second, whatever comes is new.
saved_nothing_for_a_second() {
  saved_bytes
  [ "$SAVED" = "$before" ] || quiet_since=$EPOCHREALTIME
  before=$SAVED
  [ $((${EPOCHREALTIME/./} - ${quiet_since/./})) -ge 1000000 ]
}
before=0
wait_for 60 "end of the pictures" saved_nothing_for_a_second
echo plug >&"$CAMERA"
wait_for 60 "node after the camera was plugged in again" find_camera
appeared=$EPOCHREALTIME
wait_for 30 "picture after the camera was plugged in again" saved_more_than "$before"
say "plugged in: picture at the viewer $(elapsed "$appeared" "$EPOCHREALTIME") s after $NODE appeared"
wait_for 60 "live camera in the agent's status" status_says '"state":"live"'
wait_for 60 "stream that goes on" saved_more_than $((before + 200000))

kill -INT "$PROBE"
wait "$PROBE" || fail "the viewer: $(tail -n 3 probe.log)"
grep -q '"failed": *null' probe.json || fail "the viewer did not stay: $(grep '"failed"' probe.json)"
