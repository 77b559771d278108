# shellcheck shell=bash
# shellcheck disable=SC2317 # section calls what it is given
# What bench.sh and soak.sh share: a broker and an agent of their own, on loopback, and a result file.

cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../.." || exit
target=${CARGO_TARGET_DIR:-$PWD/target}
bin=$target/release
work=$(mktemp -d)
pids=()

end() {
  local pid
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  wait
  rm -rf "$work"
}
trap end EXIT

free_port() {
  local port
  while port=$((RANDOM % 20000 + 20000)); do
    [ -n "$(ss -Hltn "sport = :$port")" ] || break
  done
  echo "$port"
}

# start_agent GOP_SECS: mosquitto and the agent with its test card; sets $broker, $page and $agent (a process id).
start_agent() {
  local port
  port=$(free_port)
  page=127.0.0.1:$(free_port)
  broker=tcp://127.0.0.1:$port
  printf 'listener %s 127.0.0.1\nallow_anonymous true\n' "$port" >"$work/mosquitto.conf"
  PATH=$PATH:/usr/sbin mosquitto -c "$work/mosquitto.conf" 2>"$work/mosquitto.log" &
  pids+=($!)
  cat >"$work/peercam.toml" <<TOML
[device]
state_dir = "$work/state"
[[camera]]
source = "pattern"
gop_secs = $1
[broker]
url = "$broker"
[network]
udp_port = 0
[http]
listen = "$page"
signaling = true
whep = true
[limits]
viewers = 200
TOML
  "$bin/peercam" run --config "$work/peercam.toml" 2>"$work/agent.log" &
  agent=$!
  pids+=("$agent")
}

probe() { "$bin/peercam-probe" --broker "$broker" "$@"; }

# Processor time of a process so far, in hundredths of a second; and its memory in KiB.
cpu_ticks() { awk '{ print $14 + $15 }' "/proc/$1/stat"; }
memory_kib() { awk '/^VmRSS/ { print $2 }' "/proc/$1/status"; }

machine() {
  printf '%s, %s × %s, %s MiB, Linux %s, %s\n' "$(uname -m)" "$(nproc)" \
    "$(lscpu | sed -n 's/^Model name: *//p' | head -n1)" "$(awk '/MemTotal/ { print int($2 / 1024) }' /proc/meminfo)" \
    "$(uname -r)" "$(rustc --version)"
}

# result NAME: from here on what is printed is kept in docs/results too.
result() {
  mkdir -p docs/results
  file=docs/results/$(date -u +%F)-$1.md
  exec > >(tee "$file") 2>&1
  printf '# %s, %s\n\n%s\n\nRevision %s. Load average at the start: %s.\n' "$1" "$(date -u +%F)" "$(machine)" \
    "$(git describe --always --dirty)" "$(cut -d' ' -f1-3 /proc/loadavg)"
}

failed=0
# section TITLE COMMAND...: its output, and whether it met its limits.
section() {
  local title=$1 status=0
  shift
  printf '\n## %s\n\n```\n' "$title"
  "$@" || status=$?
  printf '```\n'
  if [ $status != 0 ]; then
    printf '\n**Missed** (exit code %s).\n' "$status"
    failed=$((failed + 1))
  fi
}
