#!/usr/bin/env bash
# ./dev soak [MINUTES]: what takes too long for every change. Prints, and keeps, docs/results/DATE-soak.md.
# PEERCAM_CLEAN=0 leaves the clean machine out, which takes the better part of an hour.
# shellcheck disable=SC2317 # section calls the functions
set -euo pipefail
# shellcheck source=tests/soak/common.sh
. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/common.sh"
# shellcheck source=tests/soak/mixed.sh
. tests/soak/mixed.sh

minutes=${1:-30}
cargo build --workspace --locked
cargo build --release --locked
start_agent 4
result soak

# joins ROUNDS: each with its own random moments.
joins() {
  local seed
  for ((seed = 1; seed <= $1; seed++)); do
    probe --viewers 20 --join-spread-ms 4000 --seconds 6 --seed "$seed" --max-hello-first-key-p95-ms 150 || return
  done
}
section "20 viewers join, 10 rounds" joins 10

# steady MINUTES: nothing is lost, and memory does not grow by more than 8 MiB once it has settled.
steady() {
  local before after
  before=$(memory_kib "$agent")
  probe --viewers 20 --seconds $(($1 * 60)) --max-lost-frames 0 --max-freezes 0 || return
  after=$(memory_kib "$agent")
  echo "memory: $before KiB before, $after KiB after"
  [ $((after - before)) -lt 8192 ]
}
section "20 viewers for $minutes minutes" steady "$minutes"

# coming_and_going ROUNDS: sessions leave nothing behind.
coming_and_going() {
  local before after round
  probe --viewers 50 --seconds 2 >/dev/null || return
  before=$(memory_kib "$agent")
  for ((round = 1; round <= $1; round++)); do probe --viewers 50 --join-spread-ms 500 --seconds 2 --seed "$round" >/dev/null || return; done
  after=$(memory_kib "$agent")
  echo "memory: $before KiB after 50 sessions, $after KiB after $((50 + 50 * $1))"
  [ $((after - before)) -lt 8192 ]
}
section "2,000 sessions come and go" coming_and_going 40

section "20 minutes of viewers, with camera and broker lost now and then" mixed "${PEERCAM_MIXED_MINUTES:-20}"

section "a day of virtual time, 10,000 viewers come and go" \
  cargo test --workspace --locked --quiet --test day -- --ignored --nocapture

section "the broker is away for 60 s and comes back at another address" \
  env PEERCAM_SOAK=1 cargo test --workspace --locked --quiet --test agent_broker_away -- --nocapture

section "strangers do harm while six watch, ten times" \
  env PEERCAM_SOAK=1 cargo test --workspace --locked --quiet --test agent_hostile -- --nocapture

section "a TURN server that forgets everything within a minute, for three" \
  env PEERCAM_SOAK=1 cargo test --workspace --locked --quiet --test agent_relay renewed -- --nocapture

# whep_of_aiortc SECONDS: a WHEP client that nobody here wrote decodes the picture. Fetches it from PyPI.
whep_of_aiortc() {
  python3 -m venv "$work/venv" && "$work/venv/bin/pip" install --quiet aiortc==1.16.0 aiohttp==3.14.5 || return
  "$work/venv/bin/python" tests/soak/whep_aiortc.py "http://$page/whep" "$1"
}
section "aiortc by WHEP" whep_of_aiortc 30

section "real camera in a VM, again and again" sh -c 'for round in 1 2 3 4 5; do tests/vm/run.sh || exit; done'

if [ "${PEERCAM_CLEAN:-1}" = 0 ]; then
  printf '\nA clean Debian 12 was left out.\n'
elif [ "$(id -u)" = 0 ]; then
  section "a clean Debian 12" tests/soak/clean_machine.sh
else
  printf '\nA clean Debian 12 was not tried: that needs root.\n'
fi
exit $((failed > 0))
