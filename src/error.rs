//! The one error type: what did not happen, why, and the command that mends it.
//!
//! An error is data: a kind (what the caller does next, and so the exit code), a message, its
//! causes from the nearest to the farthest, and hints. The message never repeats a cause.

use std::fmt::{self, Display};

use serde::{Deserialize, Serialize};

pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// What kind of failure it is. kubectl shows its user only our stderr and the code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    /// 1: anything that has no code of its own.
    Other,
    /// 2: the command line cannot be understood.
    Usage,
    /// 3: a person must sign in, and nobody can be asked.
    SignInNeeded,
    /// 4: the sign-in was refused, cancelled or timed out.
    SignInFailed,
    /// 5: the settings or the kubeconfig are wrong.
    Settings,
    /// 6: the provider or the cluster cannot be reached.
    Unreachable,
    /// 70: a bug of ours.
    Bug,
    /// 130: Ctrl-C, or asked to end by a signal.
    Interrupted,
}

impl Kind {
    /// The process's exit code.
    pub(crate) fn exit_code(self) -> u8 {
        match self {
            Self::Other => 1,
            Self::Usage => 2,
            Self::SignInNeeded => 3,
            Self::SignInFailed => 4,
            Self::Settings => 5,
            Self::Unreachable => 6,
            Self::Bug => 70,
            Self::Interrupted => 130,
        }
    }
}

/// A failure. It serialises, so that processes that wait for another one's sign-in can share its
/// failure too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Error {
    kind: Kind,
    message: String,
    causes: Vec<String>,
    hints: Vec<String>,
}

impl Error {
    /// `message` says what did not happen, to what: lower case, no full stop, literals in backticks.
    pub(crate) fn new(kind: Kind, message: impl Display) -> Self {
        Self { kind, message: printable(&message), causes: Vec::new(), hints: Vec::new() }
    }

    pub(crate) fn usage(message: impl Display) -> Self {
        Self::new(Kind::Usage, message)
    }

    pub(crate) fn settings(message: impl Display) -> Self {
        Self::new(Kind::Settings, message)
    }

    pub(crate) fn unreachable(message: impl Display) -> Self {
        Self::new(Kind::Unreachable, message)
    }

    pub(crate) fn sign_in_failed(message: impl Display) -> Self {
        Self::new(Kind::SignInFailed, message)
    }

    /// Something that our own code promised not to let happen.
    pub(crate) fn bug(message: impl Display) -> Self {
        Self::new(Kind::Bug, message)
    }

    /// Adds one cause in words.
    pub(crate) fn cause(mut self, cause: impl Display) -> Self {
        self.causes.push(printable(&cause));
        self
    }

    /// Adds another error and its own causes, leaving out those whose text the one before has
    /// already said.
    pub(crate) fn caused_by(mut self, error: &(dyn std::error::Error + 'static)) -> Self {
        let mut next = Some(error);
        while let Some(error) = next {
            let text = printable(error);
            if !self.causes.last().is_some_and(|last| last.contains(&text)) {
                self.causes.push(text);
            }
            next = error.source();
        }
        self
    }

    /// Adds one of our own errors as the cause of this one; its hints come along.
    pub(crate) fn because(mut self, error: Error) -> Self {
        self.causes.push(error.message);
        self.causes.extend(error.causes);
        self.hints.extend(error.hints);
        self
    }

    /// Adds a command, or a step, that works now.
    pub(crate) fn hint(mut self, hint: impl Display) -> Self {
        self.hints.push(printable(&hint));
        self
    }

    /// Without hints: they were for another moment.
    pub(crate) fn without_hints(self) -> Self {
        Self { hints: Vec::new(), ..self }
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    pub(crate) fn causes(&self) -> &[String] {
        &self.causes
    }

    pub(crate) fn hints(&self) -> &[String] {
        &self.hints
    }
}

impl Display for Error {
    /// The whole text that stands on stderr, without a line end.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "kubectl-headlamp: error: {}", self.message)?;
        for cause in &self.causes {
            write!(formatter, "\n  caused by: {cause}")?;
        }
        for (index, hint) in self.hints.iter().enumerate() {
            let gap = if index == 0 { "\n" } else { "" };
            write!(formatter, "{gap}\nhint: {hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

/// The text on one line, without what a terminal could act on (control characters, bidirectional
/// overrides), and no longer than a reader has patience for.
pub(crate) fn printable(text: &(impl Display + ?Sized)) -> String {
    let text = text.to_string();
    let mut shown = String::with_capacity(text.len());
    let mut space = false;
    for character in text.chars() {
        if character.is_whitespace() {
            space = !shown.is_empty();
        } else if !character.is_control() && !invisible(character) {
            if space {
                shown.push(' ');
                space = false;
            }
            shown.push(character);
        }
        if shown.len() > LONGEST_LINE {
            shown.push('…');
            break;
        }
    }
    shown
}

/// Characters that change how their neighbours are shown: bidirectional marks and zero-width ones.
fn invisible(character: char) -> bool {
    matches!(character, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
}

/// Bytes; longer server text is cut.
const LONGEST_LINE: usize = 600;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_reads_message_causes_hints() {
        let error = Error::settings("`a` is not a URL").cause("relative URL").hint("write `--issuer-url https://…`");
        assert_eq!(
            error.to_string(),
            "kubectl-headlamp: error: `a` is not a URL\n  caused by: relative URL\n\nhint: write `--issuer-url https://…`"
        );
    }

    #[test]
    fn a_cause_that_says_its_source_again_is_shown_once() {
        #[derive(Debug)]
        struct Outer(std::num::ParseIntError);
        impl Display for Outer {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, "bad port: {}", self.0)
            }
        }
        impl std::error::Error for Outer {
            fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
                Some(&self.0)
            }
        }
        let cause = "x".parse::<u16>().err().map(Outer);
        let error = cause.map(|cause| Error::usage("no").caused_by(&cause));
        assert_eq!(error.map(|error| error.causes.len()), Some(1));
    }

    #[test]
    fn server_text_cannot_reach_the_terminal_raw() {
        assert_eq!(printable("a\u{1b}[31mb\r\n c\u{202e}d\u{0}"), "a[31mb cd");
        assert!(printable(&"x".repeat(10_000)).len() < 700);
    }
}
