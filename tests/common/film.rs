//! Films that nobody decodes, and pictures that nobody looks at.

/// Four seconds of H.264 with one key frame, at so many bits a second. Nobody decodes it: what follows the slice headers is filling.
pub fn film(bps: usize, fps: usize) -> Vec<u8> {
    // x264's, for 320x180.
    const SPS: &[u8] = &[
        0x67, 0x64, 0x00, 0x0c, 0xac, 0xb2, 0x02, 0x83, 0x3f, 0x3e, 0x02, 0x20, 0x00, 0x00, 0x03, 0x00, 0x20, 0x00, 0x00, 0x06, 0x41, 0xe2,
        0x85, 0x49,
    ];
    const PPS: &[u8] = &[0x68, 0xeb, 0xc3, 0xcb, 0x22, 0xc0];
    const KEY: usize = 60_000;
    let pictures = 4 * fps;
    let other = (bps / 8 * 4 - KEY) / (pictures - 1);
    let mut film = Vec::new();
    let mut write = |header: &[u8], size: usize| {
        film.extend_from_slice(&[0, 0, 0, 1]);
        film.extend_from_slice(header);
        film.resize(film.len() + size - header.len(), 0x55);
    };
    write(SPS, SPS.len());
    write(PPS, PPS.len());
    write(&[0x65, 0x88, 0x84], KEY);
    for _ in 1..pictures {
        write(&[0x41, 0x9a, 0x11], other);
    }
    film
}

/// Pictures of soft noise that no earlier one foretells: an encoder makes of them as many bits as it may.
pub fn noise(width: usize, height: usize, pictures: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let mut sample = |luma: bool| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        if luma { 100 + (state % 48) as u8 } else { 128 }
    };
    let (luma, chroma) = (width * height, width * height / 2);
    (0..pictures * (luma + chroma))
        .map(|at| sample(at % (luma + chroma) < luma))
        .collect()
}
