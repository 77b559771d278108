# A uvcvideo camera's H.264, through the agent and a broker to a viewer: every NAL unit arrives, equal and in order.
# shellcheck shell=bash
SECS=10

start_camera
peercam devices > devices.log || fail "peercam devices: $(<devices.log)"
grep -q H264 devices.log || fail "peercam devices does not list the camera's H.264: $(<devices.log)"
start_agent first

# The whole film's length: a viewer may begin again at a key frame while it joins, and then still has the seconds wanted.
start_viewer
PAUSE=1 wait_for 120 "$(stat -c %s "$FILM") bytes at the viewer" saved_more_than "$(stat -c %s "$FILM")"
stop_viewer
said=$(uvcip compare "$FILM" /run/saved.h264 $((SECS * FILM_FPS)) 2>&1) || fail "$said"
say "$said"
