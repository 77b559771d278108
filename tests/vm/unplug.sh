# The camera is unplugged and plugged in again while somebody watches: the viewer stays, the status tells, the picture comes back.
# shellcheck shell=bash

start_camera
start_agent "$NODE"

start_viewer
wait_for 60 "picture at the viewer" saved_more_than 200000
echo unplug >&"$CAMERA"
pulled=$EPOCHREALTIME
wait_for 60 "status that says the camera is lost" status_says '"state":"lost"'
say "unplugged: the status said so after $(elapsed "$pulled" "$EPOCHREALTIME") s: $(tail -n 1 statuses.log | grep -o '"reason":"[^"]*"')"
status_says '"reason":"' || fail "the status gives no reason: $(tail -n 1 statuses.log)"
wait_for 60 "end of the camera's node" no_camera

# What was under way arrives; once nothing has come for a second, whatever comes is new.
saved_nothing_for_a_second() {
  read_saved
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

stop_viewer
said=$(uvcip compare "$FILM" /run/saved.h264 "$FILM_FPS" 2>&1) || fail "$said"
