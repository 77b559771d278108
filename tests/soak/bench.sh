#!/usr/bin/env bash
# ./dev bench: what this machine does. Prints, and keeps, docs/results/DATE-bench.md.
# shellcheck disable=SC2317 # section calls the functions
set -euo pipefail
# shellcheck source=tests/soak/common.sh
. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/common.sh"

cargo build --release --locked
start_agent 4
result bench

# Twenty people who open the page at random moments of a four-second group of pictures.
section "20 viewers join at random moments" \
  probe --viewers 20 --join-spread-ms 4000 --seconds 6 --max-hello-first-key-p95-ms 150

# crowd N: what N viewers cost the agent, in per cent of one core.
crowd() {
  local before after began=$SECONDS
  before=$(cpu_ticks "$agent")
  probe --viewers "$1" --seconds 20 --max-lost-frames 0
  after=$(cpu_ticks "$agent")
  awk -v ticks=$((after - before)) -v secs=$((SECONDS - began)) -v hz="$(getconf CLK_TCK)" \
    'BEGIN { printf "agent, encoder included: %.1f %% of one core\n", 100 * ticks / hz / secs }'
  echo "memory: $(memory_kib "$agent") KiB"
}
for viewers in 1 10 50 100; do section "$viewers viewers for 20 s" crowd "$viewers"; done

section "parts" cargo bench --locked --quiet --bench '*'
exit $((failed > 0))
