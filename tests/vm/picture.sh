# A uvcvideo camera's H.264, through the agent and a broker to a viewer: every NAL unit arrives, equal and in order.
# shellcheck shell=bash
SECS=10

start_camera
peercam devices > devices.log || fail "peercam devices: $(<devices.log)"
grep -q H264 devices.log || fail "peercam devices does not list the camera's H.264: $(<devices.log)"
start_agent first

# On a busy machine the agent may have to drop pictures for a viewer that is late; it does so up to a key frame, and the
# viewer watches until it has seen the seconds that are wanted in one piece. What it saved must be the film's in any case.
compare_saved() {
  uvcip compare "$FILM" /run/saved.h264 $((SECS * FILM_FPS)) > compare.log 2>&1
}
saved_in_one_piece() {
  read_saved
  compare_saved
}
start_viewer
PAUSE=1 wait_for $((10 * SECS)) "$SECS s in one piece at the viewer" saved_in_one_piece
latency "a USB camera's own H.264"
stop_viewer
compare_saved || fail "$(<compare.log)"
say "$(<compare.log)"
