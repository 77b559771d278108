//! A QR code for terminals.

use anyhow::Context;
use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode};

/// `text` as a QR code of block characters, two modules to a character.
///
/// Terminals are mostly dark, and a code has to be dark on light: so light modules are drawn, dark ones left out.
///
/// # Errors
/// `text` is longer than a QR code can hold (about 2,900 bytes).
pub fn text(text: &str) -> anyhow::Result<String> {
    let code = QrCode::with_error_correction_level(text, EcLevel::L).context("drawing the QR code")?;
    Ok(code
        .render::<Dense1x2>()
        .dark_color(Dense1x2::Light)
        .light_color(Dense1x2::Dark)
        .build())
}
