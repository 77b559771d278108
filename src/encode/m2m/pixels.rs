//! How pictures lie in memory, and how they get from one layout into another.

use crate::v4l2::{Format, FourCc};

/// A colour plane in a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Plane {
    offset: usize,
    /// Bytes from row to row.
    stride: usize,
    /// Bytes of a row.
    row: usize,
    rows: usize,
}

/// The colour planes of a picture of `width` by `height` pixels in a buffer laid out by `format`, whose own size may be larger.
/// `None` for a format that is not known here, or kept in several buffers.
fn planes(format: &Format, width: usize, height: usize) -> Option<Vec<Plane>> {
    let [memory] = format.planes.as_slice() else { return None };
    let (stride, tall) = (memory.stride as usize, format.size.height as usize);
    let plane = |offset, stride, row, rows| Plane { offset, stride, row, rows };
    let luma = stride * tall;
    Some(match format.fourcc {
        FourCc::YUYV => vec![plane(0, stride, width * 2, height)],
        FourCc::NV12 => vec![plane(0, stride, width, height), plane(luma, stride, width, height / 2)],
        FourCc::YUV420 => {
            let chroma = |offset| plane(offset, stride / 2, width / 2, height / 2);
            vec![plane(0, stride, width, height), chroma(luma), chroma(luma + luma / 4)]
        }
        _ => return None,
    })
}

/// Whether a buffer that one device has filled can be read by another as it is.
pub(super) fn same_layout(camera: &Format, encoder: &Format) -> bool {
    let ([theirs], [ours]) = (camera.planes.as_slice(), encoder.planes.as_slice()) else {
        return false;
    };
    // Where colour planes follow each other, a taller first one moves the second.
    let planar = camera.fourcc != FourCc::YUYV;
    camera.fourcc == encoder.fourcc
        && theirs.stride == ours.stride
        && theirs.bytes >= ours.bytes
        && (!planar || camera.size.height == encoder.size.height)
}

/// Whether a picture of this format can be copied at all.
pub(super) fn known(format: &Format) -> bool {
    planes(format, 2, 2).is_some()
}

/// How many bytes of a buffer a whole picture fills; 0 for a format that is not known here.
#[must_use]
pub fn picture_bytes(format: &Format) -> usize {
    let all = planes(format, format.size.width as usize, format.size.height as usize).unwrap_or_default();
    all.iter()
        .map(|plane| plane.offset + plane.stride * (plane.rows.max(1) - 1) + plane.row)
        .max()
        .unwrap_or(0)
}

/// Copies a picture row by row from one layout of a format into another. False if one of the buffers is too short, or the formats
/// differ.
pub(super) fn copy(from: &Format, source: &[u8], to: &Format, target: &mut [u8]) -> bool {
    if from.fourcc != to.fourcc {
        return false;
    }
    let (width, height) = (from.size.width as usize, from.size.height as usize);
    let (Some(ours), Some(theirs)) = (planes(from, width, height), planes(to, width, height)) else {
        return false;
    };
    for (ours, theirs) in ours.iter().zip(&theirs) {
        if ours.stride == theirs.stride && ours.stride == ours.row {
            let bytes = ours.row * ours.rows;
            if !copy_bytes(source, ours.offset, target, theirs.offset, bytes) {
                return false;
            }
            continue;
        }
        for row in 0..ours.rows {
            let (from, to) = (ours.offset + row * ours.stride, theirs.offset + row * theirs.stride);
            if !copy_bytes(source, from, target, to, ours.row) {
                return false;
            }
        }
    }
    true
}

fn copy_bytes(source: &[u8], from: usize, target: &mut [u8], to: usize, bytes: usize) -> bool {
    match (source.get(from..from + bytes), target.get_mut(to..to + bytes)) {
        (Some(source), Some(target)) => {
            target.copy_from_slice(source);
            true
        }
        _ => false,
    }
}

/// Copies planar 4:2:0 without padding into an encoder's layout of the same, or of NV12.
pub(super) fn copy_i420(i420: &[u8], width: usize, height: usize, to: &Format, target: &mut [u8]) -> bool {
    let Some(theirs) = planes(to, width, height) else { return false };
    let (luma, chroma) = (width * height, width * height / 4);
    let sources = [(0, width), (luma, width / 2), (luma + chroma, width / 2)];
    match (to.fourcc, theirs.as_slice()) {
        (FourCc::YUV420, planes) => planes.iter().zip(sources).all(|(plane, (offset, stride))| {
            (0..plane.rows).all(|row| copy_bytes(i420, offset + row * stride, target, plane.offset + row * plane.stride, plane.row))
        }),
        (FourCc::NV12, [y, uv]) => {
            let bright = (0..y.rows).all(|row| copy_bytes(i420, row * width, target, y.offset + row * y.stride, width));
            bright
                && (0..uv.rows).all(|row| {
                    let half = width / 2;
                    let u = i420.get(luma + row * half..luma + (row + 1) * half);
                    let v = i420.get(luma + chroma + row * half..luma + chroma + (row + 1) * half);
                    let begin = uv.offset + row * uv.stride;
                    let (Some(u), Some(v), Some(out)) = (u, v, target.get_mut(begin..begin + uv.row)) else {
                        return false;
                    };
                    for ((pair, u), v) in out.chunks_exact_mut(2).zip(u).zip(v) {
                        pair.copy_from_slice(&[*u, *v]);
                    }
                    true
                })
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v4l2::{PlaneFormat, Size};

    fn format(fourcc: FourCc, width: u32, height: u32, stride: u32, bytes: u32) -> Format {
        let mut format = Format::new(fourcc, Size { width, height });
        format.planes = vec![PlaneFormat { stride, bytes }];
        format
    }

    #[test]
    fn rows_keep_their_places_whatever_the_padding() {
        // 4x2 pixels: from rows without padding to rows of 8 bytes in a picture of 4 rows, as an encoder of blocks wants it.
        let source: Vec<u8> = (1..=12).collect();
        let from = format(FourCc::NV12, 4, 2, 4, 12);
        let to = format(FourCc::NV12, 4, 4, 8, 48);
        let mut target = vec![0; 48];
        assert!(copy(&from, &source, &to, &mut target));
        assert_eq!(
            (&target[..4], &target[8..12], &target[32..36]),
            (&source[..4], &source[4..8], &source[8..12])
        );
        assert_eq!(target.iter().filter(|byte| **byte != 0).count(), 12);
        let (from, to) = (format(FourCc::YUV420, 4, 2, 4, 12), format(FourCc::YUV420, 4, 4, 8, 48));
        let mut target = vec![0; 48];
        assert!(copy(&from, &source, &to, &mut target));
        assert_eq!((&target[32..34], &target[40..42]), (&source[8..10], &source[10..12]));
        let mut i420 = vec![0; 48];
        assert!(copy_i420(&source, 4, 2, &to, &mut i420));
        assert_eq!(i420, target);
        let mut nv12 = vec![0; 48];
        assert!(copy_i420(&source, 4, 2, &format(FourCc::NV12, 4, 4, 8, 48), &mut nv12));
        assert_eq!(nv12[32..36], [9, 11, 10, 12]);
    }

    #[test]
    fn buffers_that_are_too_short_are_refused() {
        let nv12 = format(FourCc::NV12, 4, 2, 4, 12);
        assert_eq!(picture_bytes(&nv12), 12);
        assert!(!copy(&nv12, &[0; 11], &nv12, &mut [0; 12]));
        assert!(!copy(&nv12, &[0; 12], &nv12, &mut [0; 11]));
        assert!(!copy(&nv12, &[0; 12], &format(FourCc::YUYV, 4, 2, 8, 16), &mut [0; 16]));
        assert!(!copy_i420(&[0; 11], 4, 2, &nv12, &mut [0; 12]));
        assert!(!known(&format(FourCc::MJPEG, 4, 2, 0, 100)));
    }

    #[test]
    fn memory_is_shared_only_where_both_sides_mean_the_same_by_it() {
        let camera = format(FourCc::NV12, 1280, 720, 1280, 1_382_400);
        assert!(same_layout(&camera, &camera));
        assert!(
            !same_layout(&camera, &format(FourCc::NV12, 1280, 720, 1344, 1_451_520)),
            "another stride"
        );
        let tall = format(FourCc::NV12, 1920, 1080, 1920, 3_110_400);
        assert!(
            !same_layout(&tall, &format(FourCc::NV12, 1920, 1088, 1920, 3_133_440)),
            "colours elsewhere, and a buffer too short"
        );
        let packed = format(FourCc::YUYV, 640, 360, 1280, 500_000);
        assert!(same_layout(&packed, &format(FourCc::YUYV, 640, 368, 1280, 471_040)));
        assert!(
            !same_layout(&packed, &format(FourCc::YUYV, 640, 368, 1280, 500_001)),
            "a buffer too short"
        );
    }
}
