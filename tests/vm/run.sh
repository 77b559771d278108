#!/bin/bash
# Real kernel V4L2 devices for the built binaries: boots a small virtual machine for each guest test and runs it there.
#
#   tests/vm/run.sh [TEST...]       all tests, or those named (`picture`, `unplug`, `encoder`, `faults`, `usb`, `jpeg`)
#
# CARGO_TARGET_DIR says where everything is built (target), PEERCAM_BIN_DIR where peercam, peercam-probe, uvcip and vmcheck are
# (its debug/). PEERCAM_SOAK=1 plugs the camera 50 times in place of 10.
# Prints a line for each test, and `N passed, N failed` alone on the last one. Logs stay under its vm/runs.
# The machine sees this machine's own / read-only, so it needs no disk image; see machine.sh and guest.sh.
set -euo pipefail

HERE=$(cd "$(dirname "$0")" && pwd)
REPO=$(cd "$HERE/../.." && pwd)
TARGET=$(realpath -m "${CARGO_TARGET_DIR:-$REPO/target}")
VM=$TARGET/vm
BIN=$(realpath -m "${PEERCAM_BIN_DIR:-$TARGET/debug}")
TESTS=("$@")
[ $# -gt 0 ] || TESTS=(picture unplug encoder faults usb jpeg)

# shellcheck source=tests/vm/machine.sh
. "$HERE/machine.sh"

for test in "${TESTS[@]}"; do
  [ -f "$HERE/$test.sh" ] || die "there is no guest test '$test' in tests/vm"
done
for binary in peercam peercam-probe uvcip vmcheck; do
  [ -x "$BIN/$binary" ] || die "$BIN/$binary is missing: cargo build --workspace makes it"
done

need kmod kmod
need cpio cpio
need ffmpeg ffmpeg
need mosquitto mosquitto
need mosquitto_rr mosquitto-clients
need ip iproute2
need make make
need gcc-12 gcc-12
need xz xz-utils
need v4l2-ctl v4l-utils
prepare_machine
make_film

passed=0 failed=0
for test in "${TESTS[@]}"; do
  began=$SECONDS
  # Each boot has a directory of its own, shared with the guest: two runs at once don't meet.
  mkdir -p "$VM/runs"
  RUN=$(mktemp -d "$VM/runs/$test.XXXXXX")
  if boot "$test"; then
    passed=$((passed + 1))
    echo "ok      $test ($((SECONDS - began)) s)"
  else
    failed=$((failed + 1))
    sed 's/^/        | /' "$RUN/console.log"
    echo "FAILED  $test ($((SECONDS - began)) s); everything it wrote is in $RUN"
  fi
  sed 's/^/        /' "$RUN/said" 2>/dev/null || true
done

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
