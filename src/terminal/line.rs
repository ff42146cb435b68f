//! One line as it is typed or pasted: what the terminal's own line editor would do, without its
//! limit.

/// Bytes.
const LONGEST: usize = 64 * 1024;

const END_OF_FILE: char = '\u{4}';
const BACKSPACE: char = '\u{8}';
const KILL: char = '\u{15}';
const ESCAPE: char = '\u{1b}';
const DELETE: char = '\u{7f}';

/// The line so far. It never holds a control character, and neither does its echo, but for those
/// that erase: what is pasted cannot steer the terminal.
#[derive(Default)]
pub(super) struct Line {
    text: String,
    /// The bytes of a character that is not complete yet.
    partial: Vec<u8>,
    keys: Keys,
}

/// Where in an escape sequence we are (ECMA-48 §5.4): arrow keys and pasting marks are no text.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Keys {
    #[default]
    Text,
    /// After ESC.
    Escape,
    /// After ESC `[`, until a letter or `~`.
    Sequence,
}

/// What the line is after a byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Unfinished,
    Finished,
    /// The end of input was asked for, on an empty line.
    Closed,
}

impl Line {
    /// Takes the next byte, and adds to `echo` what the terminal has to show for it.
    pub(super) fn take(&mut self, byte: u8, echo: &mut String) -> State {
        self.partial.push(byte);
        let character = match std::str::from_utf8(&self.partial) {
            Ok(text) => text.chars().next().unwrap_or_default(),
            Err(error) if error.error_len().is_none() => return State::Unfinished,
            Err(_) => char::REPLACEMENT_CHARACTER,
        };
        self.partial.clear();
        self.take_character(character, echo)
    }

    pub(super) fn into_text(self) -> String {
        self.text
    }

    fn take_character(&mut self, character: char, echo: &mut String) -> State {
        match (character, self.keys) {
            ('\r' | '\n', _) => return State::Finished,
            (END_OF_FILE, _) if self.text.is_empty() => return State::Closed,
            (END_OF_FILE, _) => return State::Finished,
            (ESCAPE, _) => self.keys = Keys::Escape,
            ('[', Keys::Escape) => self.keys = Keys::Sequence,
            ('@'..='~', Keys::Sequence) | (_, Keys::Escape) => self.keys = Keys::Text,
            (_, Keys::Sequence) => {}
            (BACKSPACE | DELETE, Keys::Text) => self.erase(echo),
            (KILL, Keys::Text) => {
                while !self.text.is_empty() {
                    self.erase(echo);
                }
            }
            (_, Keys::Text) if character.is_control() => {}
            (_, Keys::Text) => self.add(character, echo),
        }
        State::Unfinished
    }

    fn add(&mut self, character: char, echo: &mut String) {
        if self.text.len() + character.len_utf8() <= LONGEST {
            self.text.push(character);
            echo.push(character);
        }
    }

    fn erase(&mut self, echo: &mut String) {
        if self.text.pop().is_some() {
            echo.push_str("\u{8} \u{8}");
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The line, its echo, and how it ended.
    fn typed(bytes: &[u8]) -> (String, String, State) {
        let (mut line, mut echo) = (Line::default(), String::new());
        for byte in bytes {
            let state = line.take(*byte, &mut echo);
            if state != State::Unfinished {
                return (line.into_text(), echo, state);
            }
        }
        (line.into_text(), echo, State::Unfinished)
    }

    fn text(bytes: &[u8]) -> String {
        typed(bytes).0
    }

    #[test]
    fn a_line_ends_at_return_newline_and_end_of_file() {
        assert_eq!(typed(b"ab\rcd"), ("ab".into(), "ab".into(), State::Finished));
        assert_eq!(typed(b"ab\ncd"), ("ab".into(), "ab".into(), State::Finished));
        assert_eq!(typed(b"ab\x04cd"), ("ab".into(), "ab".into(), State::Finished));
        assert_eq!(typed(b"\x04").2, State::Closed);
        assert_eq!(typed(b"\n"), (String::new(), String::new(), State::Finished));
    }

    #[test]
    fn backspace_takes_whole_characters_and_never_the_prompt() {
        assert_eq!(
            typed("aü\u{7f}\u{8}\u{7f}b\n".as_bytes()),
            ("b".into(), "aü\u{8} \u{8}\u{8} \u{8}b".into(), State::Finished)
        );
        assert_eq!(text(b"abc\x15d\n"), "d");
    }

    #[test]
    fn keys_and_pasting_marks_are_no_text() {
        assert_eq!(text(b"\x1b[200~https://a/?x=1\x1b[201~\n"), "https://a/?x=1");
        assert_eq!(text(b"a\x1b[A\x1bxb\x1b\n"), "ab");
    }

    #[test]
    fn what_is_too_long_is_dropped() {
        let (line, echo, state) = typed(&[vec![b'x'; LONGEST + 10], vec![b'\n']].concat());
        assert_eq!((line.len(), echo.len(), state), (LONGEST, LONGEST, State::Finished));
    }

    proptest! {
        #[test]
        fn printable_text_comes_back_as_it_was(wanted in "[^\\p{C}]{0,300}") {
            let (line, echo, state) = typed(format!("{wanted}\n").as_bytes());
            prop_assert_eq!(&line, &wanted);
            prop_assert_eq!(&echo, &wanted);
            prop_assert_eq!(state, State::Finished);
        }

        #[test]
        fn no_bytes_steer_the_terminal(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let (line, echo, _) = typed(&bytes);
            prop_assert!(!line.chars().any(char::is_control));
            prop_assert!(!echo.chars().any(|character| character.is_control() && character != BACKSPACE));
        }
    }
}
