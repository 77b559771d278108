# Raw cameras through the hardware encoder: single- and multi-planar, memory shared and copied, controls, forced key frames, drain;
# then the agent itself, from the camera to a viewer.
# shellcheck shell=bash

# told COMMAND...: it has to succeed; what it says is told.
told() {
  local said
  said=$("$@" 2>&1) || fail "$*: $said"
  while read -r line; do say "$line"; done <<< "$said"
}

for planes in 2 1; do
  start_vivid "$planes"
  [ "$planes" = 1 ] || told vmcheck events "$NODE"
  told vmcheck encode "$NODE" nv12 640x360 shared
  [ "$planes" = 1 ] || told vmcheck encode "$NODE" yuyv 640x360 shared
  told vmcheck encode "$NODE" yuv420 640x360 copied
  [ "$planes" = 2 ] || break
  told vmcheck frames
  echo 50 > /sys/module/vicodec/parameters/h264_stall_after
  told vmcheck stall
  echo 0 > /sys/module/vicodec/parameters/h264_stall_after
  modprobe -r vivid vicodec || fail "vivid and vicodec do not unload: somebody still has them open"
done

peercam devices > devices.log || fail "peercam devices: $(<devices.log)"
grep -q 'hardware encoder vicodec' devices.log || fail "peercam devices does not list the encoder: $(<devices.log)"
[ "$(grep -c 'makes H.264' devices.log)" = 1 ] || fail "peercam devices takes a decoder for an encoder: $(<devices.log)"
grep -q 'encodes its NV12' devices.log || fail "peercam devices does not say what becomes of vivid: $(<devices.log)"
