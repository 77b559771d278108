#!/usr/bin/env bash
# ./dev fuzz [SECONDS [TARGET...]]: every target for a minute, as many at once as there are cores. fuzz/README.md says what they are.
# With "build" instead of SECONDS it only builds.
set -euo pipefail
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.."
# One folder, whoever calls this: cargo would build into fuzz/target, and older programs would run.
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}
target=$CARGO_TARGET_DIR
host=$(rustc -vV | sed -n 's/^host: //p')
bin=$target/$host/debug
# What is learnt stays between runs, and out of the repository.
work=$target/fuzz

# cargo-fuzz's own flags (`--sanitizer none`, release 0.13), so that it needs neither that nor a nightly toolchain. `--target` keeps
# them away from build scripts, which have no fuzzer to report to.
flags=(
  -Cpasses=sancov-module
  -Cllvm-args=-sanitizer-coverage-level=4
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
  -Cllvm-args=-sanitizer-coverage-pc-table
  -Cllvm-args=-sanitizer-coverage-trace-compares
  -Cllvm-args=-simplifycfg-branch-fold-threshold=0
  --cfg fuzzing
)
RUSTFLAGS="${RUSTFLAGS:+$RUSTFLAGS }${flags[*]}" cargo build --manifest-path fuzz/Cargo.toml --locked --target "$host"
[ "${1:-}" != build ] || exit 0

seconds=${1:-60}
[[ $seconds =~ ^[1-9][0-9]*$ ]] || { echo "fuzz: $seconds is no number of seconds" >&2; exit 2; }
shift || true
targets=("$@")
if [ ${#targets[@]} = 0 ]; then
  for file in fuzz/fuzz_targets/*.rs; do targets+=("$(basename "$file" .rs)"); done
fi
for name in "${targets[@]}"; do
  [ -e "fuzz/fuzz_targets/$name.rs" ] || { echo "fuzz: there is no target $name; fuzz/README.md lists them" >&2; exit 2; }
done

# fuzz_one TARGET: what it printed, and how it ended, goes to files.
fuzz_one() {
  local name=$1 began=$SECONDS status=0
  mkdir -p "$work/corpus/$name" "$work/artifacts/$name"
  # Twice what the largest seed has, many times what the largest target needs, and what no input may take on a busy machine.
  "$bin/$name" "$work/corpus/$name" "fuzz/seeds/$name" -max_total_time="$seconds" -max_len=16384 -rss_limit_mb=1024 -timeout=25 \
    -artifact_prefix="$work/artifacts/$name/" -print_final_stats=1 >"$work/$name.log" 2>&1 || status=$?
  echo "$status $((SECONDS - began))" >"$work/$name.end"
}

mkdir -p "$work"
# As in every program that Rust starts; here libFuzzer has the `main`.
trap '' PIPE
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
echo "fuzzing ${#targets[@]} targets for $seconds s each, $(nproc) at once"
for name in "${targets[@]}"; do
  rm -f "$work/$name.end"
  while [ "$(jobs -rp | wc -l)" -ge "$(nproc)" ]; do wait -n || true; done
  fuzz_one "$name" &
done
wait

# number PATTERN LOG: the last number that follows PATTERN; 0 if there is none.
number() { sed -n "s/.*$1 *\([0-9][0-9]*\).*/\1/p" "$2" | tail -n1 | grep . || echo 0; }

passed=0 failed=0 found=()
printf '\n%-12s %12s %10s %10s %8s  %s\n' target executions 'cov start' 'cov end' seconds result
for name in "${targets[@]}"; do
  log=$work/$name.log
  read -r status took <"$work/$name.end"
  executions=$(number 'stat::number_of_executed_units:' "$log")
  first=$(number 'INITED cov:' "$log") last=$(number ' cov:' "$log")
  if [ "$status" != 0 ]; then
    result="FOUND SOMETHING" found+=("$name")
  elif [ "$executions" = 0 ] || [ "$first" = 0 ]; then
    # Blind fuzzing finds next to nothing, and looks the same.
    result="NO COVERAGE IS MEASURED" found+=("$name")
  else
    result=ok
  fi
  if [ "$result" = ok ]; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
  printf '%-12s %12s %10s %10s %8s  %s\n' "$name" "$executions" "$first" "$last" "$took" "$result"
done
for name in "${found[@]}"; do
  log=$work/$name.log
  printf '\n== %s (all of it: %s)\n' "$name" "$log"
  # A panic with what led to it; else, as for too much time or memory, the end.
  if grep -q 'panicked at' "$log"; then
    sed -n '/panicked at/,$p' "$log" | head -n 40
  else
    grep -v '^stat::' "$log" | tail -n 40
  fi
  artifact=$(sed -n 's/.*Test unit written to //p' "$log" | tail -n1)
  [ -n "$artifact" ] || continue
  cat <<TEXT
show it again:     $bin/$name $artifact
make it smaller:   $bin/$name -minimize_crash=1 -max_total_time=60 $artifact
when it is mended: cp $artifact fuzz/seeds/$name/NAME, with a name that says what it is
TEXT
done
printf '\n%s passed, %s failed\n' "$passed" "$failed"
[ "$failed" = 0 ]
