# shellcheck shell=bash
# The virtual machine: Debian's kernel and QEMU from their packages, unpacked under target/vm, never installed.
# Sourced by run.sh, which sets HERE, REPO, VM and BIN.

# For one that hangs. Beside another machine, boot included, tests take 25 to 110 s on two cores, with PEERCAM_SOAK up to 145 s.
BOOT_LIMIT_SECS=400

# The picture has to be back so soon after a camera's node.
BACK_WITHIN_MS=3000

# What the film lasts and shows; uvcip's camera says the same of itself.
FILM_SIZE=640x360
FILM_FPS=25
FILM_SECS=12

die() {
  echo "tests/vm: $*" >&2
  exit 2
}

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# need COMMAND PACKAGE: installs the package where the command is missing (sbin is not in everybody's path).
need() {
  PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null && return
  echo "installing $2: the machine's tests use $1"
  as_root apt-get -qq install -y --no-install-recommends "$2" >/dev/null || {
    as_root apt-get -qq update && as_root apt-get -qq install -y --no-install-recommends "$2" >/dev/null
  } || die "cannot install $2"
}

# download PACKAGE...: their files into the current directory, without root and without installing anything.
download() {
  apt-get -qq -o APT::Sandbox::User="$(id -un)" download "$@"
}

# The packages that installing QEMU would bring, as apt sees it from here.
qemu_packages() {
  apt-get -s --no-install-recommends install qemu-system-x86 | sed -n 's/^Inst \([^ ]*\) .*/\1/p'
}

# Kernel, busybox, QEMU and what an encoder's module is built of into $VM, once; two runs at once wait for each other here.
prepare_machine() {
  [ "$(uname -m)" = x86_64 ] || die "the machine is x86_64 only"
  mkdir -p "$VM"
  exec {lock}>"$VM/lock"
  flock "$lock"
  # A machine of before there was an encoder in it has no headers for its kernel, and they may be gone from the archive.
  if [ ! -f "$VM/ready" ] || [ ! -d "$VM/source" ]; then
    rm -f "$VM/ready"
    fetch_machine || {
      echo "tests/vm: trying again with fresh package lists"
      as_root apt-get -qq update && fetch_machine
    } || die "cannot fetch the machine's packages"
    touch "$VM/ready"
  fi
  KERNEL=$(cd "$VM/kernel/lib/modules" && echo *)
  BUSYBOX=$(find "$VM/tools" -name busybox -type f -perm -100)
  build_encoder
  make_initramfs
  flock -u "$lock"
}

fetch_machine() {
  echo "fetching the machine's kernel, its source and QEMU (about 240 MB)"
  rm -rf "$VM"/{debs,kernel,tools,qemu,headers,source,encoder.built}
  mkdir -p "$VM"/{debs/kernel,debs/tools,debs/qemu,debs/headers,debs/source,kernel,tools,qemu,headers,source}
  local version
  # The meta package names the newest kernel; older ones leave the archive, so no version is written here.
  version=$(apt-cache depends linux-image-amd64 | sed -n 's/.*Depends: linux-image-//p')
  [ -n "$version" ] || return 1
  (cd "$VM/debs/kernel" && download "linux-image-$version") || return 1
  (cd "$VM/debs/tools" && download busybox-static) || return 1
  local series
  series=$(echo "$version" | cut -d. -f1,2)
  # shellcheck disable=SC2046
  (cd "$VM/debs/headers" && download "linux-headers-$version" $(header_packages "$version")) || return 1
  (cd "$VM/debs/source" && download "linux-source-$series") || return 1
  if ! command -v qemu-system-x86_64 >/dev/null; then
    # Unpacked, not installed: installing it makes apt remove other QEMU packages.
    # shellcheck disable=SC2046
    (cd "$VM/debs/qemu" && download $(qemu_packages)) || return 1
  fi
  local part package
  for part in kernel tools qemu headers; do
    for package in "$VM/debs/$part"/*.deb; do
      [ -f "$package" ] || continue
      dpkg-deb -x "$package" "$VM/$part" || return 1
    done
  done
  PATH=$PATH:/usr/sbin:/sbin depmod -b "$VM/kernel" "$version" || return 1
  # The few files that the encoder is made of, out of the whole kernel.
  dpkg-deb --fsys-tarfile "$VM/debs/source"/*.deb | tar -xOf - --wildcards './usr/src/*.tar.xz' | xz -dc -T2 |
    tar -xf - -C "$VM/source" --strip-components=1 --wildcards '*/drivers/media/test-drivers/vicodec/*' '*/v4l2-core/v4l2-mem2mem.c' || return 1
  # Their makefiles name each other by where they would be installed.
  sed -i "s,/usr/src/linux-headers,$VM/headers/usr/src/linux-headers,g" "$VM/headers/usr/src/linux-headers-$version/Makefile" || return 1
  rm -rf "$VM/debs"
}

# What a kernel's headers need to build a module: its common headers, the build tools, the compiler's choice.
header_packages() {
  apt-cache depends "linux-headers-$1" | sed -n 's/.*Depends: \(linux-.*\)/\1/p'
}

# The kernel's test codec, made an encoder of H.264 by vicodec/patch.sh, as a module of the machine; again whenever that changes.
build_encoder() {
  local made=$VM/encoder sum
  sum=$(cat "$HERE/vicodec"/* | sha256sum)
  [ "$(cat "$VM/encoder.built" 2>/dev/null)" != "$sum" ] || return 0
  rm -rf "$made" && mkdir -p "$made"
  cp "$VM/source/drivers/media/v4l2-core/v4l2-mem2mem.c" "$VM"/source/drivers/media/test-drivers/vicodec/*.[ch] "$HERE/vicodec/h264.c" "$made/"
  "$HERE/vicodec/patch.sh" "$made/vicodec-core.c" || die "the kernel's vicodec is not as vicodec/patch.sh expects it"
  printf 'obj-m := v4l2-mem2mem.o vicodec.o\nvicodec-objs := vicodec-core.o codec-fwht.o codec-v4l2-fwht.o\n' > "$made/Makefile"
  make -s -j2 -C "$VM/headers/usr/src/linux-headers-$KERNEL" M="$made" modules > "$made/log" 2>&1 || {
    cat "$made/log"
    die "the encoder's module does not compile"
  }
  mkdir -p "$VM/kernel/lib/modules/$KERNEL/extra"
  cp "$made"/*.ko "$VM/kernel/lib/modules/$KERNEL/extra/"
  PATH=$PATH:/usr/sbin:/sbin depmod -b "$VM/kernel" "$KERNEL"
  echo "$sum" > "$VM/encoder.built"
}

# busybox, the modules that mount this machine's / by 9p, and the init that does it.
make_initramfs() {
  local root=$VM/initramfs module file
  rm -rf "$root"
  mkdir -p "$root"/{bin,proc,sys,dev,modules,new,writable,host}
  cp "$BUSYBOX" "$root/bin/busybox"
  cp "$HERE/init" "$root/init"
  chmod 755 "$root/init"
  for module in virtio_pci 9pnet_virtio 9p overlay; do
    PATH=$PATH:/usr/sbin:/sbin modprobe -d "$VM/kernel" -S "$KERNEL" --show-depends "$module"
  done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' | while read -r file; do
    cp "$file" "$root/modules/"
    basename "$file" >> "$root/modules/order"
  done
  (cd "$root" && find . | cpio -o -H newc --quiet | gzip -1) > "$VM/initramfs.gz.$$"
  mv "$VM/initramfs.gz.$$" "$VM/initramfs.gz"
}

# What the cameras show: JPEG pictures, and H.264 as a camera's encoder makes it, two slices a picture, parameter sets before every key frame.
make_film() {
  [ -f "$VM/film.mjpeg" ] || ffmpeg -nostdin -loglevel error -y -f lavfi -i "testsrc2=size=$FILM_SIZE:rate=10:duration=2" \
    -pix_fmt yuvj422p -c:v mjpeg -q:v 5 -f mjpeg "$VM/film.mjpeg.$$"
  [ -f "$VM/film.mjpeg" ] || mv "$VM/film.mjpeg.$$" "$VM/film.mjpeg"
  [ -f "$VM/film.h264" ] && return
  ffmpeg -nostdin -loglevel error -y -f lavfi -i "testsrc2=size=$FILM_SIZE:rate=$FILM_FPS:duration=$FILM_SECS" \
    -pix_fmt yuv420p -c:v libx264 -preset veryfast -tune zerolatency -profile:v baseline -b:v 1M -g "$FILM_FPS" -keyint_min "$FILM_FPS" \
    -x264-params aud=1:repeat-headers=1:sliced-threads=0:slices=2 -f h264 "$VM/film.h264.$$"
  mv "$VM/film.h264.$$" "$VM/film.h264"
}

# boot TEST: runs a guest test in a machine of its own; its status is the test's.
boot() {
  printf '%s=%q\n' TEST "$1" HERE "$HERE" BIN "$BIN" FILM "$VM/film.h264" JPEG_FILM "$VM/film.mjpeg" FILM_SIZE "$FILM_SIZE" FILM_FPS "$FILM_FPS" \
    SOAK "${PEERCAM_SOAK:-0}" BACK_WITHIN_MS "$BACK_WITHIN_MS" MODULES "$VM/kernel/lib/modules" BUSYBOX "$BUSYBOX" > "$RUN/env"
  local qemu=(qemu-system-x86_64) status=0
  if [ -x "$VM/qemu/usr/bin/qemu-system-x86_64" ]; then
    local share=$VM/qemu/usr/share
    qemu=(env "LD_LIBRARY_PATH=$VM/qemu/usr/lib/x86_64-linux-gnu:$VM/qemu/lib/x86_64-linux-gnu" "$VM/qemu/usr/bin/qemu-system-x86_64"
      -L "$share/qemu" -L "$share/seabios" -L "$VM/qemu/usr/lib/ipxe/qemu")
  fi
  # TCG, not KVM: it works everywhere, and a machine in a machine often has no KVM of use.
  timeout --foreground -k 5 "$BOOT_LIMIT_SECS" "${qemu[@]}" -M q35 -accel tcg,thread=multi -cpu max -smp 2 -m 2048 \
    -kernel "$VM"/kernel/boot/vmlinuz-* -initrd "$VM/initramfs.gz" \
    -append "console=ttyS0 quiet panic=-1 mitigations=off" -nodefaults -display none -no-reboot -serial stdio -nic none \
    -fsdev "local,id=host,path=/,security_model=none,readonly=on,multidevs=remap" -device virtio-9p-pci,fsdev=host,mount_tag=host \
    -fsdev "local,id=run,path=$RUN,security_model=none,multidevs=remap" -device virtio-9p-pci,fsdev=run,mount_tag=run \
    < /dev/null > "$RUN/console.log" 2>&1 || status=$?
  [ "$status" != 124 ] || echo "tests/vm: still running after $BOOT_LIMIT_SECS s: stopped" >> "$RUN/console.log"
  [ "$status" = 0 ] && [ "$(cat "$RUN/status" 2>/dev/null)" = 0 ]
}
