//! Whether a JPEG is whole.

/// Markers that stand alone, without a length after them: TEM, RST0 to RST7, SOI.
const ALONE: [std::ops::RangeInclusive<u8>; 2] = [0x01..=0x01, 0xD0..=0xD8];
const END_OF_IMAGE: u8 = 0xD9;

/// Whether the first picture of a JPEG file reaches its end-of-image marker.
///
/// Decoders differ in what they make of data that end early: `zune-jpeg` fills the rest with grey,
/// libjpeg behind Pillow refuses the file. Pillow's rule holds here: a file is whole when the
/// marker is there, even where only that marker is missing. Bytes after it (a second picture, an
/// appended archive, padding) do not matter. Bytes between segments that are no marker are skipped,
/// as libjpeg does.
pub(super) fn is_whole(bytes: &[u8]) -> bool {
    let mut at = 2;
    while let Some(marker) = next_marker(bytes, &mut at) {
        match marker {
            END_OF_IMAGE => return true,
            alone if ALONE.iter().any(|range| range.contains(&alone)) => {}
            _ => match bytes.get(at..).and_then(|rest| rest.first_chunk()) {
                // The length counts its own two bytes. What follows a start of scan is data, in
                // which 0xFF is followed by 0 unless it begins a marker, so the search for the next
                // marker passes over it.
                Some(&length) => at += usize::from(u16::from_be_bytes(length)),
                None => return false,
            },
        }
    }
    false
}

/// The next marker from a place on, which is moved behind it.
fn next_marker(bytes: &[u8], at: &mut usize) -> Option<u8> {
    loop {
        *at += bytes.get(*at..)?.iter().position(|&byte| byte == 0xFF)?;
        // Any number of 0xFF may precede a marker.
        *at += bytes[*at..].iter().position(|&byte| byte != 0xFF)?;
        let marker = bytes[*at];
        *at += 1;
        if marker != 0 {
            return Some(marker);
        }
    }
}
