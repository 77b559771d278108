# A uvcvideo camera's H.264, through the agent and a broker to a viewer: every NAL unit arrives, equal and in order.
# shellcheck shell=bash
SECS=10

start_camera
peercam devices > devices.log || fail "peercam devices: $(<devices.log)"
grep -q H264 devices.log || fail "peercam devices does not list the camera's H.264: $(<devices.log)"
start_agent first

# It joins with a burst and leaves within a second: two more than are compared.
timeout 120 peercam-probe --broker tcp://127.0.0.1:1883 --seconds $((SECS + 2)) --json --save /run/saved.h264 > probe.json 2> probe.log ||
  fail "the viewer: $(grep '"failed"' probe.json; tail -n 3 probe.log)"
said=$(uvcip compare "$FILM" /run/saved.h264 $((SECS * FILM_FPS)) 2>&1) || fail "$said"
say "$said"
