# A USB camera that delivers JPEG: its pictures decoded, encoded in software, shown to a viewer; damaged and half ones, and a replug.
# shellcheck shell=bash
modprobe uvcvideo nodrop=1
start_camera "$JPEG_FILM" 10
start_agent "$NODE" 'bitrate_kbps = 300' 'encoder = "software"'
grep -q 'format=MJPG' peercam.log || fail "the camera does not run as one of JPEG: $(grep started peercam.log)"
start_viewer
wait_for 60 "pictures at the viewer" saved_more_than 100000
latency "JPEG, decoded, encoded in software"

skipped_more_than() {
  [ "$(scrape peercam_camera_pictures_skipped_total)" -gt "$1" ]
}
# fault WORDS: three pictures of the camera are so; each is counted, and the stream goes on.
fault() {
  local counted
  counted=$(scrape peercam_camera_pictures_skipped_total)
  echo "$1 3" >&"$CAMERA"
  wait_for 60 "three counted pictures ($1)" skipped_more_than $((counted + 2))
  read_saved
  wait_for 60 "stream that goes on after them ($1)" saved_more_than $((SAVED + 30000))
  status_says '"state":"live"' || fail "they ended the stream ($1): $(tail -n 1 statuses.log)"
}
fault corrupt
fault half
say "damaged and half JPEG pictures: counted, and the stream went on"

echo unplug >&"$CAMERA"
wait_for 60 "lost camera" status_says '"state":"lost"'
read_saved
before=$SAVED
echo plug >&"$CAMERA"
wait_for 60 "node of the camera" find_camera
wait_for 60 "live camera" status_says '"state":"live"'
wait_for 60 "picture after the replug" saved_more_than $((before + 30000))
stop_viewer

# What is shown is what the camera showed: black is black and white is white, though JPEG has another range.
levels() {
  ffmpeg -nostdin -loglevel error -xerror -i "$1" -frames:v 20 -vf scale=in_range=auto:out_range=full,format=gray,signalstats,metadata=print:file=- -f null - |
    sed -n 's/^lavfi.signalstats.\(YMIN\|YAVG\|YMAX\)=//p' | paste - - - | awk '{ min += $1; avg += $2; max += $3 } END { print int(min / NR), int(avg / NR), int(max / NR) }'
}
read -r _ wanted _ <<< "$(levels "$JPEG_FILM")"
read -r least got most <<< "$(levels /run/saved.h264)"
say "luma of the film is $wanted in the mean; of what the viewer got $got, from $least to $most, in full range"
[ $((got - wanted)) -le 3 ] && [ $((wanted - got)) -le 3 ] || fail "it is not as bright as the film"
