//! The screen, for what must be said before the guest starts.

use font8x8::legacy::BASIC_LEGACY;
use policy::address::PhysicalRange;

/// Where the VGA text buffer lies.
pub const TEXT_BUFFER: u64 = 0xB8000;
const TEXT_COLUMNS: usize = 80;
const TEXT_ROWS: usize = 25;
/// White on red.
const TEXT_ATTRIBUTE: u8 = 0x4F;
/// Edge of a character of the font, in its own dots.
const GLYPH: usize = 8;

/// What the screen shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Screen {
    /// Nothing that SecVisor can write to.
    #[default]
    None,
    /// VGA text mode, 80 columns and 25 rows at [`TEXT_BUFFER`].
    Text80x25,
    /// A linear framebuffer.
    Linear(Framebuffer),
}

/// Where a colour lies in a pixel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Channel {
    /// Its lowest bit.
    pub position: u8,
    /// Its bits.
    pub size: u8,
}

impl Channel {
    /// The channel's bits of `intensity` (0 dark to 255 bright) in a pixel.
    fn shade(self, intensity: u8) -> u32 {
        let dropped = 8u32.saturating_sub(self.size.into());
        let scaled = u32::from(intensity).checked_shr(dropped).unwrap_or(0);
        scaled.checked_shl(self.position.into()).unwrap_or(0)
    }
}

/// A linear framebuffer of 15 to 32 bits per pixel whose lines fit in its pitch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Framebuffer {
    range: PhysicalRange,
    /// Bytes from one line to the next.
    pub pitch: u16,
    /// Pixels in a line.
    pub width: u16,
    /// Lines.
    pub height: u16,
    /// Bits of a pixel: 15, 16, 24 or 32.
    pub bits_per_pixel: u8,
    /// Where red lies.
    pub red: Channel,
    /// Where green lies.
    pub green: Channel,
    /// Where blue lies.
    pub blue: Channel,
}

impl Framebuffer {
    /// A framebuffer at `address`; `None` unless its geometry holds together.
    #[expect(clippy::too_many_arguments, reason = "the fields of the multiboot2 tag")]
    pub fn new(
        address: u64,
        pitch: u32,
        width: u32,
        height: u32,
        bits_per_pixel: u8,
        red: Channel,
        green: Channel,
        blue: Channel,
    ) -> Option<Self> {
        let pixel =
            u32::from(matches!(bits_per_pixel, 15 | 16 | 24 | 32).then_some(bits_per_pixel)?)
                .div_ceil(8);
        let range = PhysicalRange::new(address, u64::from(pitch).checked_mul(height.into())?)?;
        let fits = width.checked_mul(pixel)? <= pitch;
        let sizes = [red, green, blue].iter().all(|c| c.size <= 8 && c.position < 32);
        (fits && sizes && width > 0).then_some(Self {
            range,
            pitch: pitch.try_into().ok()?,
            width: width.try_into().ok()?,
            height: height.try_into().ok()?,
            bits_per_pixel,
            red,
            green,
            blue,
        })
    }

    /// Its memory: `pitch` times `height` bytes.
    pub const fn range(&self) -> PhysicalRange {
        self.range
    }

    /// The bytes of a pixel of this colour.
    fn pixel(&self, red: u8, green: u8, blue: u8) -> [u8; 4] {
        (self.red.shade(red) | self.green.shade(green) | self.blue.shade(blue)).to_le_bytes()
    }

    /// Draws `text` from the top, bright on red, in letters that stay readable on large screens.
    fn write(&self, pixels: &mut [u8], text: &str) {
        let scale = usize::from(self.width).checked_div(640).unwrap_or(1).max(1);
        let cell = scale.saturating_mul(GLYPH);
        let columns = usize::from(self.width).checked_div(cell).unwrap_or(0);
        let (dark, bright) = (self.pixel(0xAA, 0, 0), self.pixel(0xFF, 0xFF, 0xFF));
        let bytes = usize::from(self.bits_per_pixel).div_ceil(8);
        let mut lines = pixels.chunks_exact_mut(self.pitch.into());
        for row in rows(text, columns) {
            for dots in 0..GLYPH {
                for line in lines.by_ref().take(scale) {
                    let letters = row.iter().copied().chain(core::iter::repeat(b' '));
                    let cells = line.chunks_exact_mut(cell.saturating_mul(bytes)).take(columns);
                    for (cell, letter) in cells.zip(letters) {
                        let glyph = BASIC_LEGACY.get(usize::from(letter)).and_then(|g| g.get(dots));
                        let mut glyph = glyph.copied().unwrap_or(0);
                        for dot in cell.chunks_exact_mut(bytes.saturating_mul(scale)) {
                            let colour = if glyph & 1 == 1 { bright } else { dark };
                            glyph >>= 1;
                            for pixel in dot.chunks_exact_mut(bytes) {
                                pixel.iter_mut().zip(colour).for_each(|(to, byte)| *to = byte);
                            }
                        }
                    }
                }
            }
        }
    }
}

impl Screen {
    /// The memory that [`write`] needs; `None` without a screen.
    pub fn bytes(&self) -> Option<PhysicalRange> {
        match self {
            Self::None => None,
            Self::Text80x25 => {
                PhysicalRange::new(TEXT_BUFFER, (TEXT_COLUMNS * TEXT_ROWS * 2) as u64)
            }
            Self::Linear(framebuffer) => Some(framebuffer.range()),
        }
    }
}

/// Writes `text` on top of the screen, as much of it as fits: `pixels` is the memory that
/// [`Screen::bytes`] names. Lines wrap; what is not ASCII shows as `?`.
pub fn write(screen: &Screen, pixels: &mut [u8], text: &str) {
    match screen {
        Screen::None => {}
        Screen::Text80x25 => {
            let lines = pixels.chunks_exact_mut(TEXT_COLUMNS * 2).take(TEXT_ROWS);
            for (line, row) in lines.zip(rows(text, TEXT_COLUMNS)) {
                let letters = row.iter().copied().chain(core::iter::repeat(b' '));
                for (cell, letter) in line.chunks_exact_mut(2).zip(letters) {
                    let shown = if letter.is_ascii() { letter } else { b'?' };
                    cell.iter_mut().zip([shown, TEXT_ATTRIBUTE]).for_each(|(to, b)| *to = b);
                }
            }
        }
        Screen::Linear(framebuffer) => framebuffer.write(pixels, text),
    }
}

/// The rows of `text`: its lines, wrapped at `columns`. An empty line has no row.
fn rows(text: &str, columns: usize) -> impl Iterator<Item = &[u8]> {
    let lines = text.as_bytes().split(|&byte| byte == b'\n');
    lines.flat_map(move |line| line.chunks(columns.max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn framebuffer(width: u32, height: u32, bits: u8) -> Framebuffer {
        let channel = |position, size| Channel { position, size };
        let pitch = width * u32::from(bits).div_ceil(8) + 8;
        let (red, green, blue) = match bits {
            16 => (channel(11, 5), channel(5, 6), channel(0, 5)),
            _ => (channel(16, 8), channel(8, 8), channel(0, 8)),
        };
        Framebuffer::new(1 << 33, pitch, width, height, bits, red, green, blue).unwrap()
    }

    #[test]
    fn text_wraps_and_is_padded() {
        let mut pixels = vec![0; Screen::Text80x25.bytes().unwrap().length() as usize];
        write(&Screen::Text80x25, &mut pixels, &format!("{}\nß!", "a".repeat(81)));
        let row = |n: usize| pixels[n * 160..][..160].chunks(2).map(|c| c[0]).collect::<Vec<_>>();
        assert_eq!(row(0), [b'a'; 80]);
        assert_eq!((row(1)[0], row(1)[1]), (b'a', b' '));
        assert_eq!(row(2)[..4], *b"??! ");
        assert!(pixels[..480].chunks(2).all(|cell| cell[1] == TEXT_ATTRIBUTE));
        assert!(pixels[480..].iter().all(|&byte| byte == 0));
    }

    #[test]
    fn letters_are_drawn_in_each_format() {
        for (bits, bright, dark) in [
            (32, vec![255, 255, 255, 0], vec![0, 0, 0xAA, 0]),
            (24, vec![255, 255, 255], vec![0, 0, 0xAA]),
            (16, vec![255, 255], vec![0, 0xA8]),
        ] {
            let linear = framebuffer(20, 10, bits);
            let mut pixels = vec![7; linear.range().length() as usize];
            write(&Screen::Linear(linear), &mut pixels, "|.x");
            let size = bright.len();
            let pixel =
                |x: usize, y: usize| &pixels[y * usize::from(linear.pitch) + x * size..][..size];
            // The font's bar is two dots wide, at columns 3 and 4.
            assert_eq!(
                (pixel(2, 0), pixel(3, 0), pixel(4, 0)),
                (&dark[..], &bright[..], &bright[..])
            );
            assert_eq!(pixel(8, 0), dark);
            assert!((16..20).all(|x| pixel(x, 0).iter().all(|&byte| byte == 7)), "no half letters");
            assert!((0..20).all(|x| pixel(x, 8)[0] != 7 || x >= 16), "the second row");
        }
    }

    #[test]
    fn letters_grow_with_the_screen() {
        let linear = framebuffer(1300, 40, 32);
        let mut pixels = vec![7; linear.range().length() as usize];
        write(&Screen::Linear(linear), &mut pixels, "|\nL");
        let bright = |x: usize, y: usize| pixels[y * usize::from(linear.pitch) + x * 4] == 0xFF;
        let row = |y: usize| (0..16).map(|x| bright(x, y)).collect::<Vec<_>>();
        assert!(bright(6, 0) && bright(9, 1) && !bright(5, 0) && !bright(10, 1));
        assert!((0..16).all(|line| row(line * 2) == row(line * 2 + 1)), "dots of 2 by 2 pixels");
        assert_eq!(pixels[32 * usize::from(linear.pitch)], 7, "below the second row");
    }

    proptest! {
        #[test]
        fn any_screen_is_written(
            geometry in (any::<u64>(), 0u32..600, 0u32..2000, 0u32..40), bits: u8,
            channels in prop::array::uniform3((any::<u8>(), any::<u8>())),
            text: String, short in 0usize..5000,
        ) {
            let (address, pitch, width, height) = geometry;
            let [red, green, blue] = channels.map(|(position, size)| Channel { position, size });
            let linear = Framebuffer::new(address, pitch, width, height, bits, red, green, blue);
            let mut pixels = vec![0; short];
            for screen in [Some(Screen::Text80x25), linear.map(Screen::Linear)].into_iter().flatten() {
                write(&screen, &mut pixels, &text);
                let mut whole = vec![0; screen.bytes().unwrap().length() as usize];
                write(&screen, &mut whole, &text);
            }
        }
    }
}
