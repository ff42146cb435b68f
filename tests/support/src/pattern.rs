//! Bytes without an end that need no memory, and that can be told apart from any others: for streams
//! of gigabytes that must arrive exactly.

use std::io;
use std::sync::LazyLock;

use futures_util::stream::unfold;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Bytes, Frame};

/// A prime, so that no block size hides a shift.
const PERIOD: usize = 1_048_573;

static PERIODS: LazyLock<Bytes> = LazyLock::new(|| {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let one = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    });
    Bytes::from(one.take(PERIOD).collect::<Vec<u8>>().repeat(2))
});

/// The bytes from this offset on, at most a mebibyte less three bytes.
pub fn pattern(offset: u64, length: usize) -> Bytes {
    let start = usize::try_from(offset % PERIOD as u64).expect("less than the period");
    PERIODS.slice(start..start + length.min(PERIOD))
}

/// A body of so many bytes of [`pattern`], made as they are sent; `None`: for ever.
pub fn pattern_body(length: Option<u64>) -> UnsyncBoxBody<Bytes, io::Error> {
    let pieces = unfold(0, move |offset| async move {
        let left = length.map_or(PIECE, |length| (length - offset).min(PIECE));
        let piece = pattern(offset, usize::try_from(left).unwrap_or(0));
        (left > 0).then(|| (Ok(Frame::data(piece)), offset + left))
    });
    StreamBody::new(pieces).boxed_unsync()
}

/// Bytes of a frame.
const PIECE: u64 = 64 * 1024;

/// Looks at bytes as they arrive, and notes where they first differ from [`pattern`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PatternCheck {
    /// Bytes that came.
    pub length: u64,
    /// Where the first wrong byte was.
    pub wrong_at: Option<u64>,
}

impl PatternCheck {
    /// The next bytes.
    pub fn take(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let expected = pattern(self.length, bytes.len());
            let (now, later) = bytes.split_at(expected.len());
            if self.wrong_at.is_none() && now != expected {
                let right = now.iter().zip(&expected).take_while(|(come, expected)| come == expected).count();
                self.wrong_at = Some(self.length + right as u64);
            }
            self.length += now.len() as u64;
            bytes = later;
        }
    }
}
