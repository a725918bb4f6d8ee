//! Just enough about images to know whether the Messages API will take one: an image that it refuses would be refused
//! again with every later request of the session.

/// The longest side that the API takes, in pixels.
pub const MAX_SIDE: u32 = 8_000;

/// Width and height, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dimensions {
    pub width: u32,
    pub height: u32,
}

/// Returns the media type of an image that can be shown, by its first bytes.
pub fn media_type(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0x89, b'P', b'N', b'G', 0x0d, 0x0a, 0x1a, 0x0a, ..] => Some("image/png"),
        [0xff, 0xd8, 0xff, ..] => Some("image/jpeg"),
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Some("image/gif"),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some("image/webp"),
        _ => None,
    }
}

/// Returns the size of an image as its header says, if it has a whole one and any size.
pub fn dimensions(media_type: &str, bytes: &[u8]) -> Option<Dimensions> {
    let found = match media_type {
        "image/png" => png(bytes),
        "image/jpeg" => jpeg(bytes),
        "image/gif" => gif(bytes),
        _ => webp(bytes),
    }?;
    (found.width > 0 && found.height > 0).then_some(found)
}

fn png(bytes: &[u8]) -> Option<Dimensions> {
    let header = bytes.get(12..24)?;
    let big = |at: usize| Some(u32::from_be_bytes(header.get(at..at + 4)?.try_into().ok()?));
    header.starts_with(b"IHDR").then_some(Dimensions { width: big(4)?, height: big(8)? })
}

fn gif(bytes: &[u8]) -> Option<Dimensions> {
    Some(Dimensions { width: little16(bytes, 6)?, height: little16(bytes, 8)? })
}

/// Goes from segment to segment until a frame header.
fn jpeg(bytes: &[u8]) -> Option<Dimensions> {
    let mut at = 2;
    loop {
        let [0xff, marker] = *bytes.get(at..at + 2)? else { return None };
        match marker {
            // Fill bytes, and markers without a segment.
            0xff => at += 1,
            0x01 | 0xd0..=0xd7 => at += 2,
            0xc0..=0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf => {
                let big =
                    |at: usize| Some(u32::from(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?)));
                return Some(Dimensions { height: big(at + 5)?, width: big(at + 7)? });
            }
            0xd9 | 0xda => return None,
            _ => at += 2 + usize::from(u16::from_be_bytes(bytes.get(at + 2..at + 4)?.try_into().ok()?)),
        }
    }
}

fn webp(bytes: &[u8]) -> Option<Dimensions> {
    match bytes.get(12..16)? {
        b"VP8 " => {
            Some(Dimensions { width: little16(bytes, 26)? & 0x3fff, height: little16(bytes, 28)? & 0x3fff })
        }
        b"VP8L" => {
            let bits = u32::from_le_bytes(bytes.get(21..25)?.try_into().ok()?);
            Some(Dimensions { width: (bits & 0x3fff) + 1, height: ((bits >> 14) & 0x3fff) + 1 })
        }
        b"VP8X" => {
            let little24 = |at: usize| Some(little16(bytes, at)? | u32::from(*bytes.get(at + 2)?) << 16);
            Some(Dimensions { width: little24(24)? + 1, height: little24(27)? + 1 })
        }
        _ => None,
    }
}

fn little16(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn size(bytes: &[u8]) -> Option<(u32, u32)> {
        dimensions(media_type(bytes)?, bytes).map(|found| (found.width, found.height))
    }

    #[test]
    fn headers_are_understood() {
        let png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\x01\0\0\0\0\x02\x08\x06\0\0\0";
        let gif = b"GIF89a\x03\0\x04\0\x80\0\0";
        let jpeg = b"\xff\xd8\xff\xe0\0\x04ab\xff\xff\xc2\0\x11\x08\0\x05\0\x06\x03";
        let lossy = b"RIFF\0\0\0\0WEBPVP8 \0\0\0\0\0\0\0\x9d\x01\x2a\x07\0\x08\0";
        let lossless = b"RIFF\0\0\0\0WEBPVP8L\0\0\0\0\x2f\x09\x40\x02\0";
        let extended = b"RIFF\0\0\0\0WEBPVP8X\0\0\0\0\0\0\0\0\x0a\0\0\x0b\0\0";
        for (bytes, expected) in [
            (png.as_slice(), Some((256, 2))),
            (gif, Some((3, 4))),
            (jpeg, Some((6, 5))),
            (lossy, Some((7, 8))),
            (lossless, Some((10, 10))),
            (extended, Some((11, 12))),
            (b"GIF89a\0\0\x04\0", None),
            (b"text", None),
        ] {
            assert_eq!(size(bytes), expected, "{bytes:?}");
            if expected.is_some() {
                assert_eq!(
                    size(&bytes[..bytes.len().min(15)]).filter(|_| bytes != gif),
                    None,
                    "cut: {bytes:?}"
                );
            }
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(kind in 0..4_usize, rest in proptest::collection::vec(any::<u8>(), 0..64)) {
            let starts: [&[u8]; 4] =
                [b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"RIFF\0\0\0\0WEBPVP8X"];
            let bytes = [starts[kind], rest.as_slice()].concat();
            let _ = size(&bytes);
        }
    }
}
