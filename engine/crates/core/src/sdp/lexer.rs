//! Cuts an offer into numbered lines (RFC 8866 section 5) and lines into fields. Foreign bytes; nothing here panics.

use super::SdpError;

/// One `type=value` line.
#[derive(Clone, Copy, Debug)]
pub(super) struct SdpLine<'a> {
    /// Counted from 1.
    pub number: usize,
    /// The letter before `=`.
    pub letter: u8,
    /// What follows it.
    pub value: &'a str,
}

impl<'a> SdpLine<'a> {
    /// An error about this line.
    pub fn error(&self, reason: impl Into<String>) -> SdpError {
        SdpError::new(self.number, reason)
    }

    /// `name:value` of an `a=` line; the value is empty for a flag.
    pub fn attribute(&self) -> (&'a str, &'a str) {
        self.value.split_once(':').unwrap_or((self.value, ""))
    }

    /// A number in the line.
    pub fn number_of<T: std::str::FromStr>(&self, text: &str, what: &str) -> Result<T, SdpError> {
        // `parse` would take a leading plus sign.
        if !text.bytes().all(|b| b.is_ascii_digit()) {
            return Err(self.error(format!("{what} is not a number")));
        }
        text.parse().map_err(|_| self.error(format!("{what} is not a number in range")))
    }
}

/// The lines of an offer; line ends may be CRLF or LF.
pub(super) fn lines(text: &str) -> impl Iterator<Item = Result<SdpLine<'_>, SdpError>> {
    text.split('\n')
        .enumerate()
        .map(|(at, raw)| (at + 1, raw.strip_suffix('\r').unwrap_or(raw)))
        .filter(|(_, line)| !line.is_empty())
        .map(|(number, line)| line_of(number, line))
}

fn line_of(number: usize, line: &str) -> Result<SdpLine<'_>, SdpError> {
    // What we echo into the answer must not be able to end a line there.
    if line.bytes().any(|b| b < 0x20 && b != b'\t' || b == 0x7f) {
        return Err(SdpError::new(number, "control character"));
    }
    match line.as_bytes() {
        [letter, b'=', ..] if letter.is_ascii_lowercase() => Ok(SdpLine { number, letter: *letter, value: &line[2..] }),
        _ => Err(SdpError::new(number, "not of the form type=value")),
    }
}
