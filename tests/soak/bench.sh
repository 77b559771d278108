#!/usr/bin/env bash
# ./dev bench: what this machine does. Prints, and keeps, docs/results/DATE-bench.md and the figures as DATE-bench.json.
# shellcheck disable=SC2317 # section calls the functions
set -euo pipefail
# shellcheck source=tests/soak/common.sh
. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/common.sh"

# As `cargo bench` builds them, so that everything is built once.
cargo build --profile bench --bins --benches --locked
result bench
section "viewers" cargo bench --locked --quiet --bench fanout -- --json "${file%.md}.json" "$@"
section "parts" cargo bench --locked --quiet --bench packetize --bench hub --bench session
exit $((failed > 0))
