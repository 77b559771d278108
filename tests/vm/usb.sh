# A USB camera's faults while somebody watches: it stalls, it delivers damaged pictures and half ones, it comes back as something else,
# and it is plugged in again and again. Descriptors and memory stay as they were.
# shellcheck shell=bash
CYCLES=10
[ "$SOAK" != 1 ] || CYCLES=50

# Damaged buffers come through, marked: that nobody sees them is the agent's doing.
modprobe uvcvideo nodrop=1
start_camera
start_agent "$NODE"
start_viewer
wait_for 60 "picture at the viewer" saved_more_than 200000

compare_saved() {
  uvcip compare "$FILM" /run/saved.h264 "$@" > compare.log 2>&1
}
skipped_more_than() {
  [ "$(scrape peercam_camera_pictures_skipped_total)" -gt "$1" ]
}

counted=$(scrape peercam_camera_pictures_skipped_total)
echo corrupt 3 >&"$CAMERA"
wait_for 60 "three counted damaged pictures" skipped_more_than $((counted + 2))
read_saved
wait_for 60 "stream that goes on" saved_more_than $((SAVED + 200000))
compare_saved 1 || fail "a damaged picture was shown: $(<compare.log)"
status_says '"state":"live"' || fail "damaged pictures ended the stream: $(tail -n 1 statuses.log)"
say "damaged pictures: counted, and none was shown"

# stall RESULT: the camera delivers nothing, with nothing wrong at its node.
echo stall >&"$CAMERA"
stalled=$EPOCHREALTIME
wait_for 60 "status that says the camera delivers nothing" status_says 'delivers no picture for 3 s'
say "stalled: the status said so after $(elapsed "$stalled" "$EPOCHREALTIME") s"
read_saved
echo go >&"$CAMERA"
wait_for 60 "picture after the stall" saved_more_than "$SAVED"
wait_for 60 "live camera after the stall" status_says '"state":"live"'
compare_saved 1 || fail "after the stall something else was shown: $(<compare.log)"

# Nothing tells half an access unit from a whole one but its picture; the stream has to be whole again from the next key frame on.
echo half 1 >&"$CAMERA"
read_saved
half=$SAVED
wait_for 60 "stream after half an access unit" saved_more_than $((SAVED + 500000))
# Two key frames later at the latest, whatever was under way.
compare_saved 25 $((half + 250000)) || fail "after half an access unit: $(<compare.log)"
status_says '"state":"live"' || fail "half an access unit ended the stream: $(tail -n 1 statuses.log)"
say "half an access unit: the stream went on, whole from the next key frame"

# It comes back as a camera of a format that no browser shows, then as itself.
printf 'unplug\nh265\nplug\n' >&"$CAMERA"
wait_for 60 "status that says what the camera lacks" status_says 'offers no H.264'
printf 'unplug\nh264\nplug\n' >&"$CAMERA"
wait_for 60 "live camera when it is itself again" status_says '"state":"live"'
read_saved
wait_for 60 "picture when it is itself again" saved_more_than "$SAVED"
say "back with a wrong format: the status said so; back with the right one: live"

# Sets FDS and MEMORY (KiB) of the agent.
measure() {
  FDS=$(find "/proc/$AGENT/fd" -mindepth 1 | wc -l)
  MEMORY=$(sed -n 's/^VmRSS: *\([0-9]*\) kB/\1/p' "/proc/$AGENT/status")
}

slowest=0
for cycle in $(seq "$CYCLES"); do
  # The first cycles fill caches; memory is compared with what it was after them.
  [ "$cycle" != 3 ] || { measure; first_fds=$FDS first_memory=$MEMORY; }
  echo unplug >&"$CAMERA"
  wait_for 60 "end of the camera's node in cycle $cycle" no_camera
  wait_for 60 "lost camera in cycle $cycle" status_says '"state":"lost"'
  read_saved
  before=$SAVED
  echo plug >&"$CAMERA"
  wait_for 60 "node in cycle $cycle" find_camera
  appeared=$EPOCHREALTIME
  # What was under way when the camera went has long arrived.
  wait_for 60 "live camera in cycle $cycle" status_says '"state":"live"'
  wait_for 60 "picture in cycle $cycle" saved_more_than "$before"
  took=$(((${EPOCHREALTIME/./} - ${appeared/./}) / 1000))
  [ "$took" -le "$slowest" ] || slowest=$took
  wait_for 60 "stream in cycle $cycle" saved_more_than $((before + 50000))
done
measure
[ "$FDS" = "$first_fds" ] || fail "$first_fds descriptors were open after two cycles, $FDS after $CYCLES"
[ "$MEMORY" -le $((first_memory + 4096)) ] || fail "$first_memory KiB of memory after two cycles, $MEMORY after $CYCLES"
# Emulated processors take several times as long as a board; three seconds are what a board may take.
say "$CYCLES times unplugged: picture $slowest ms after the node at the latest, $FDS descriptors, memory $first_memory KiB then $MEMORY"
[ "$slowest" -le "$BACK_WITHIN_MS" ] || fail "the picture took $slowest ms to come back, at most $BACK_WITHIN_MS are allowed here"
stop_viewer
