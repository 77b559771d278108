# Every fault that vivid can play, while somebody watches its raw pictures as the hardware encoder's H.264: the viewer stays, the
# status tells what happened, the picture comes back, damaged pictures are counted and never shown.
# shellcheck shell=bash

# Single-planar YUYV of this size is what the encoder reads out of the camera's own memory: that has to be given up in order, too.
start_vivid 1
start_agent "$NODE" 'format = "yuyv"' 'size = "640x360"' 'fps = 10' 'bitrate_kbps = 300' 'controls = ["contrast=99"]'
start_viewer
wait_for 60 "picture at the viewer" saved_more_than 100000
latency "raw pictures out of the memory that camera and encoder share"

# has CONTROL VALUE: whether the kernel says so.
has() {
  [ "$(v4l2-ctl -d "$NODE" -C "$1" 2> /dev/null)" = "$1: $2" ]
}

# What the configuration and a viewer set by name is what the camera has, also when it was away.
has contrast 99 || fail "camera.controls did not set the contrast: $(v4l2-ctl -d "$NODE" -C contrast 2>&1)"
ask camera.set '{"controls":{"brightness":77,"horizontal_flip":true}}'
[[ $REPLY == *'"brightness":{'*'"value":77'* ]] || fail "camera.set does not tell what is set: $REPLY"
has brightness 77 && has horizontal_flip 1 || fail "the kernel has other controls than camera.set has set: $(v4l2-ctl -d "$NODE" -C brightness)"
ask camera.set '{"controls":{"brightness":999}}'
[[ $REPLY == *'from 0 to 255'* ]] || fail "a brightness of 999 is not refused in words: $REPLY"
v4l2-ctl -d "$NODE" -c brightness=10,contrast=11
# Another size, and back, for the viewer who stays.
for size in 640,480 640,360; do
  ask camera.set "{\"width\":${size%,*},\"height\":${size#*,}}"
  [[ $REPLY == *"\"height\":${size#*,}"* ]] || fail "the size is not set to $size: $REPLY"
  read_saved
  wait_for 60 "picture of $size" saved_more_than $((SAVED + 20000))
done
{ has brightness 77 && has contrast 99; } || fail "what was set is not set again when the camera is opened again"
say "controls set by name, kept when the camera is opened again; size changed and changed back while a viewer watched"

# statuses TEXT: sets COUNT to how many statuses said so.
statuses() {
  COUNT=$(grep -c -- "$1" statuses.log || true)
}

lost_more_than() {
  statuses '"state":"lost"'
  [ "$COUNT" -gt "$1" ]
}

press() {
  v4l2-ctl -d "$NODE" -c "$1" > v4l2-ctl.log 2>&1 || fail "vivid has no control $1: $(<v4l2-ctl.log)"
}

# skipped: sets SKIPPED to what the agent counts as lost between camera and hub.
skipped() {
  SKIPPED=$(scrape peercam_camera_pictures_skipped_total)
}

skipped_more_than() {
  skipped
  [ "$SKIPPED" -gt "$1" ]
}

# breaks CONTROL WHAT: the button ends the stream; it comes back.
breaks() {
  statuses '"state":"lost"'
  local lost_before=$COUNT
  press "$1=1"
  local pressed=$EPOCHREALTIME
  wait_for 60 "status that tells of $2" lost_more_than "$lost_before"
  local reason
  reason=$(grep '"state":"lost"' statuses.log | tail -n 1 | grep -o '"reason":"[^"]*"')
  wait_for 60 "live camera after $2" status_says '"state":"live"'
  read_saved
  wait_for 60 "picture after $2" saved_more_than "$SAVED"
  say "$2: lost and back after $(elapsed "$pressed" "$EPOCHREALTIME") s: $reason"
}

breaks disconnect "a disconnected device"
breaks inject_fatal_streaming_error "a fatal streaming error"
breaks inject_vidioc_qbuf_error "a refused buffer"

# These are no reason to stop.
statuses '"state":"lost"'
before=$COUNT
skipped
counted=$SKIPPED
press inject_v4l2_buf_flag_error=1
wait_for 60 "counted damaged picture" skipped_more_than "$counted"
skipped
counted=$SKIPPED
press percentage_of_dropped_buffers=50
wait_for 60 "ten counted lost pictures" skipped_more_than $((counted + 10))
press percentage_of_dropped_buffers=0
read_saved
wait_for 60 "stream that goes on" saved_more_than $((SAVED + 100000))
statuses '"state":"lost"'
[ "$COUNT" = "$before" ] || fail "damaged or lost pictures ended the stream: $(tail -n 1 statuses.log)"
say "a damaged buffer and dropped pictures: counted, $SKIPPED in all, and the stream went on"

# An encoder that hangs. It has made more than that many pictures since it was opened, so it stops at once.
statuses '"state":"lost"'
before=$COUNT
echo 30 > /sys/module/vicodec/parameters/h264_stall_after
wait_for 60 "status that tells of a stalled encoder" lost_more_than "$before"
grep '"state":"lost"' statuses.log | tail -n 1 | grep -q 'has encoded nothing for 3 s' || fail "the status does not say that the encoder stalled"
echo 0 > /sys/module/vicodec/parameters/h264_stall_after
wait_for 60 "live camera after the encoder stalled" status_says '"state":"live"'
# One that drops pictures, as rate control does: empty buffers.
echo 5 > /sys/module/vicodec/parameters/h264_skip_every
skipped
counted=$SKIPPED
wait_for 60 "counted pictures that the encoder dropped" skipped_more_than $((counted + 3))
echo 0 > /sys/module/vicodec/parameters/h264_skip_every
read_saved
wait_for 60 "stream after all of that" saved_more_than $((SAVED + 100000))
say "an encoder that hung was opened anew, one that dropped pictures went on"
stop_viewer
# The viewer's decoder is not ours: what was saved has to be a stream to another one too, but for what is cut off at the end.
cp /run/saved.h264 saved.h264
