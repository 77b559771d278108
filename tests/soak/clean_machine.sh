#!/usr/bin/env bash
# Both commands of the README on a Debian 12 with nothing but git: clones this repository's HEAD into a new system below
# $CLEAN_ROOT and runs them there. Needs root. The apt sources, certificates and proxies of this machine are used, if it has any.
#
#   tests/soak/clean_machine.sh [COMMAND]     COMMAND in place of both, such as "./dev test"
set -euo pipefail
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../.."
root=${CLEAN_ROOT:-$(mktemp -d /var/tmp/peercam-clean.XXXXXX)}
[ "$(id -u)" = 0 ] || { echo "clean_machine.sh: chroot needs root" >&2; exit 1; }
command -v debootstrap >/dev/null || apt-get -qy install --no-install-recommends debootstrap >&2

undo() {
  local mounted
  for mounted in dev/shm dev/pts dev proc sys; do umount -l "$root/$mounted" 2>/dev/null || true; done
  [ -n "${CLEAN_ROOT:-}" ] || rm -rf --one-file-system "$root"
}
trap undo EXIT

if [ ! -e "$root/etc/debian_version" ]; then
  mirror=$(sed -n 's/^URIs: *//p; s/^deb \(\[.*\] \)\?\(http[^ ]*\).*/\2/p' /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null | head -n1)
  debootstrap --variant=minbase --include=git,ca-certificates bookworm "$root" "${mirror:-http://deb.debian.org/debian}" >&2
fi
# minbase has no security updates in its list, a real Debian has.
cat >"$root/etc/apt/sources.list" <<'LIST'
deb http://deb.debian.org/debian bookworm main
deb http://deb.debian.org/debian bookworm-updates main
deb http://deb.debian.org/debian-security bookworm-security main
LIST
for settings in /etc/resolv.conf /etc/hosts /usr/local/share/ca-certificates /etc/apt/apt.conf.d/99*; do
  [ ! -e "$settings" ] || { mkdir -p "$root${settings%/*}" && cp -rT "$settings" "$root$settings"; }
done
chroot "$root" update-ca-certificates >&2
mount -t proc proc "$root/proc"
mount -t sysfs sys "$root/sys"
mount -t devtmpfs dev "$root/dev"
mkdir -p "$root/dev/pts" "$root/dev/shm"
mount -t devpts devpts "$root/dev/pts"
mount -t tmpfs shm "$root/dev/shm"

rm -rf "$root/srv/peercam"
git clone -q --no-hardlinks . "$root/srv/peercam"

# inside COMMAND...: with nothing of our environment but how the network is reached.
inside() {
  local pass=() name
  for name in http_proxy https_proxy no_proxy SSL_CERT_FILE NODE_EXTRA_CA_CERTS CURL_CA_BUNDLE GIT_SSL_CAINFO; do
    [ -z "${!name:-}" ] || pass+=("$name=${!name}")
  done
  chroot "$root" env -i HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 CI=true \
    "${pass[@]}" bash -c 'cd /srv/peercam && exec "$@"' bash "$@" </dev/null
}

# demo NAME: until the picture is there; its page is fetched, and it stops when asked.
demo() {
  local began=$SECONDS pid url="" log
  log=$(mktemp)
  inside ./dev demo >"$log" &
  pid=$!
  while [ -z "$url" ] && kill -0 "$pid" 2>/dev/null; do
    url=$(sed -n 's/^viewer: //p' "$log")
    sleep 1
  done
  [ -n "$url" ] || { echo "demo, $1: ended without a link"; return 1; }
  echo "demo, $1: $((SECONDS - began)) s until the link"
  curl -fsS "${url%%#*}" | grep -q '<html' || { echo "demo, $1: the page is not served"; return 1; }
  # The subshell's child is chroot, which became the demo.
  pkill -TERM -P "$pid"
  wait "$pid"
}

if [ $# -gt 0 ]; then
  inside "$@"
else
  demo cold
  demo warm
  for name in cold warm; do
    began=$SECONDS
    inside ./dev test >"/tmp/peercam-clean-$name.log" 2>&1 || { tail -n 60 "/tmp/peercam-clean-$name.log"; exit 1; }
    echo "test, $name: $((SECONDS - began)) s; $(tail -n 1 "/tmp/peercam-clean-$name.log")"
  done
fi
