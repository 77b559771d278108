# Raw cameras through the hardware encoder: single- and multi-planar, memory shared and copied, controls, forced key frames, drain;
# then the agent itself, from the camera to a viewer.
# shellcheck shell=bash

# told COMMAND...: it has to succeed; what it says is told.
told() {
  local said
  said=$("$@" 2>&1) || fail "$*: $said"
  while read -r line; do say "$line"; done <<< "$said"
}

start_vivid 1
told vmcheck encode "$NODE" yuyv 640x360 shared
told vmcheck encode "$NODE" yuv420 640x480 shared
told vmcheck frames
echo 50 > /sys/module/vicodec/parameters/h264_stall_after
told vmcheck stall
modprobe -r vivid vicodec || fail "vivid and vicodec do not unload: somebody still has them open"

start_vivid 2
told vmcheck events "$NODE"
told vmcheck encode "$NODE" nv12 640x480 shared
# 360 rows are no whole macroblocks.
told vmcheck encode "$NODE" nv12 640x360 padded
told vmcheck encode "$NODE" yuyv 640x360 copied

peercam devices > devices.log || fail "peercam devices: $(<devices.log)"
[ "$(grep -c 'hardware encoder vicodec (vicodec), makes H.264 of NV12, YU12, YUYV' devices.log)" = 1 ] ||
  fail "peercam devices does not list the encoder once, and no decoder: $(<devices.log)"
grep -q 'encodes its NV12' devices.log || fail "peercam devices does not say what becomes of vivid: $(<devices.log)"

# Vivid's multi-planar YUYV begins behind 128 bytes of its own. That shows at the first picture only, and the encoder can't skip them.
start_agent first 'format = "yuyv"' 'size = "640x360"' 'fps = 10' 'bitrate_kbps = 300'
start_viewer
wait_for 60 "pictures at the viewer" saved_more_than 1000000
grep 'pictures are copied from now on' peercam.log | grep -q 'begin at its byte 128' ||
  fail "the agent does not say that it copies: $(tail -n 5 peercam.log)"
latency "raw pictures, copied into the encoder"
stop_viewer
ffmpeg -nostdin -loglevel error -xerror -i /run/saved.h264 -frames:v 20 -f null - > ffmpeg.log 2>&1 || fail "ffmpeg cannot show it: $(<ffmpeg.log)"
say "the agent's stream from vivid through the encoder: a viewer got $SAVED bytes, and ffmpeg shows them"

# Nobody watches any more: the camera goes on, the encoder rests. Who comes then gets a picture of then.
rests() {
  [ "$(scrape peercam_camera_resting)" = "$1" ]
}
wait_for 60 "encoder that rests" rests 1
encoded=$(scrape peercam_pictures_total)
pause 2
[ "$(scrape peercam_pictures_total)" = "$encoded" ] || fail "pictures are encoded for nobody"
rm /run/saved.h264
start_viewer
wait_for 60 "pictures after the rest" saved_more_than 300000
rests 0 || fail "the agent says that the camera rests while somebody watches"
stop_viewer
ffmpeg -nostdin -loglevel error -xerror -i /run/saved.h264 -frames:v 5 -f null - > ffmpeg.log 2>&1 || fail "ffmpeg cannot show what came after the rest: $(<ffmpeg.log)"
say "the encoder rested while nobody watched, and made pictures again for who came"

# The same camera's pictures in our own memory, with a line written into them, and encoded in software.
stop_agent
rm /run/saved.h264
start_agent "$NODE" 'format = "yuyv"' 'size = "640x360"' 'fps = 10' 'bitrate_kbps = 300' 'encoder = "software"' 'overlay = true'
grep -q 'software encoder started' peercam.log || fail "the software encoder did not start: $(tail -n 5 peercam.log)"
start_viewer
wait_for 60 "pictures from software" saved_more_than 100000
latency "raw pictures, encoded in software"
stop_viewer
ffmpeg -nostdin -loglevel error -xerror -i /run/saved.h264 -frames:v 20 -f null - > ffmpeg.log 2>&1 || fail "ffmpeg cannot show it: $(<ffmpeg.log)"
say "the agent's stream from vivid, encoded in software: a viewer got $SAVED bytes, and ffmpeg shows them"

# A second encoder beside the first, for half of each picture, out of the buffers that the first one reads too.
stop_agent
modprobe -r vivid vicodec || fail "vivid and vicodec do not unload: somebody still has them open"
start_vivid 1
rm /run/saved.h264
start_agent "$NODE" 'format = "yuyv"' 'size = "640x360"' 'fps = 10' 'bitrate_kbps = 1000' 'encoder = "m2m"'
started() {
  grep -c 'hardware encoder started' peercam.log
}
[ "$(started)" = 1 ] || fail "$(started) encoders run before anybody wants the low rung"
grep -q 'hardware encoder started.*shares_memory=true' peercam.log || fail "the pictures are copied: $(grep started peercam.log)"
start_viewer
wait_for 60 "pictures of the high rung" saved_more_than 1000000
peercam-probe --broker tcp://127.0.0.1:1883 --quality low --seconds 600 --json --save /run/low.h264 > low.json 2> low.log &
LOW=$!
low_more_than() {
  kill -0 "$LOW" 2> /dev/null || fail "the low rung's viewer has left: $(grep '"failed"' low.json; tail -n 3 low.log)"
  [ "$(stat -c %s /run/low.h264 2> /dev/null || echo 0)" -gt "$1" ]
}
wait_for 60 "pictures of the low rung" low_more_than 200000
[ "$(started)" = 2 ] || fail "$(started) encoders run"
kill -INT "$LOW"
wait "$LOW" || fail "the low rung's viewer: $(grep '"failed"' low.json; tail -n 3 low.log)"
stop_viewer
size() {
  ffprobe -v error -select_streams v -show_entries stream=width,height -of csv=p=0 "$1"
}
[ "$(size /run/saved.h264) $(size /run/low.h264)" = "640,360 320,180" ] ||
  fail "the rungs are of $(size /run/saved.h264) and $(size /run/low.h264)"
ffmpeg -nostdin -loglevel error -xerror -i /run/low.h264 -frames:v 5 -f null - > ffmpeg.log 2>&1 || fail "ffmpeg cannot show the low rung: $(<ffmpeg.log)"
grep -q '"frames_undecodable": *0,' low.json && grep -q '"frames_lost": *0,' low.json || fail "the low rung lost pictures: $(grep frames low.json)"
say "two encoders of one camera: $(size /run/saved.h264) and $(size /run/low.h264), the second while somebody watched it"
