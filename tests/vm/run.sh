#!/bin/bash
# Real kernel V4L2 devices for the built binaries: boots a small virtual machine for each guest test and runs it there.
#
#   tests/vm/run.sh [TEST...]       all tests, or those named (`encoder`, `usb`, `faults`, `jpeg`, `unplug`, `picture`)
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
[ $# -gt 0 ] || TESTS=(encoder usb faults jpeg unplug picture)

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

# One machine leaves a core idle half of the time, so two run at once. The longest tests begin.
AT_ONCE=$(nproc)
[ "$AT_ONCE" -lt 2 ] || AT_ONCE=2

# The guest's own kernel has broken: nothing that the agent did or left undone can be read from such a run.
kernel_broke() {
  grep -qE 'BUG: |Oops: |general protection fault|Kernel panic' "$1/console.log"
}

# run TEST: boots it, tells how it went, and succeeds as it does. Each boot has a directory of its own, shared with the guest: two at once
# don't meet.
run() {
  local test=$1 began=$SECONDS try status=1
  for try in 1 2; do
    RUN=$(mktemp -d "$VM/runs/$test.XXXXXX")
    if boot "$test"; then
      status=0
      break
    fi
    [ "$try" = 1 ] && kernel_broke "$RUN" || break
    echo "again   $test: the guest's kernel broke after $((SECONDS - began)) s, which says nothing of the agent:"
    grep -m 1 -A 6 -E 'BUG: |Oops: |general protection fault|Kernel panic' "$RUN/console.log" | sed 's/^/        | /'
  done
  if [ "$status" = 0 ]; then
    echo "ok      $test ($((SECONDS - began)) s)"
  else
    sed 's/^/        | /' "$RUN/console.log"
    echo "FAILED  $test ($((SECONDS - began)) s); everything it wrote is in $RUN"
  fi
  sed 's/^/        /' "$RUN/said" 2>/dev/null || true
  return "$status"
}

mkdir -p "$VM/runs"
told=$(mktemp -d "$VM/runs/told.XXXXXX")
passed=0 failed=0 running=0
# finish: waits for one that runs.
finish() {
  if wait -n; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
  running=$((running - 1))
}
for test in "${TESTS[@]}"; do
  [ "$running" -lt "$AT_ONCE" ] || finish
  # What it says comes in one piece.
  {
    status=0
    run "$test" > "$told/$test" 2>&1 || status=$?
    cat "$told/$test"
    exit "$status"
  } &
  running=$((running + 1))
done
while [ "$running" -gt 0 ]; do finish; done

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
