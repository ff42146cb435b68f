//! The time of day. Only `main` names the system's clock; what is below the commands is handed
//! this one.

use jiff::{SignedDuration, Timestamp};

/// Where the time comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(fn() -> Timestamp);

impl Clock {
    /// The machine's own clock.
    pub(crate) fn system() -> Self {
        Self(Timestamp::now)
    }

    pub(crate) fn now(self) -> Timestamp {
        (self.0)()
    }

    /// A clock that a test sets.
    #[cfg(test)]
    pub(crate) fn fixed(now: fn() -> Timestamp) -> Self {
        Self(now)
    }
}

/// How long a span is, for a person: `42 s`, `7 min`, `3 h`, `12 d`; never negative.
pub(crate) fn in_words(span: SignedDuration) -> String {
    let seconds = span.as_secs().max(0);
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// A point in time, for a person: `24 November 2026, 23:17 UTC`.
pub(crate) fn in_utc(time: Timestamp) -> String {
    time.strftime("%-d %B %Y, %H:%M UTC").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_in_utc() {
        assert_eq!(in_utc(Timestamp::UNIX_EPOCH), "1 January 1970, 00:00 UTC");
    }

    #[test]
    fn spans_are_told_in_the_unit_that_fits() {
        let told = [-5, 0, 119, 120, 7_199, 7_200, 172_800].map(|seconds| in_words(SignedDuration::from_secs(seconds)));
        assert_eq!(told, ["0 s", "0 s", "119 s", "2 min", "119 min", "2 h", "2 d"]);
    }
}
