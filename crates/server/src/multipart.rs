//! A form with files, `multipart/form-data` (RFC 7578), taken apart as it comes: memory for one chunk and one part's head.

use bytes::{Buf, Bytes, BytesMut};
use memchr::memmem::Finder;

/// The head of a part: its name, a file's name and type.
const MAX_HEAD_BYTES: usize = 8 * 1024;
/// The longest boundary, by RFC 2046.
const MAX_BOUNDARY_BYTES: usize = 70;

/// Takes a form apart.
#[derive(Debug)]
pub struct Parser {
    delimiter: Finder<'static>,
    buffer: BytesMut,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before the first boundary.
    Start,
    /// After a boundary: another part, or the end.
    Boundary,
    /// In the head of a part.
    Head,
    /// In the content of a part.
    Content,
    /// After the last boundary.
    Over,
}

/// What a form consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// A part begins.
    Part(Head),
    /// Some of its content.
    Content(Bytes),
    /// It ends.
    End,
}

/// The head of a part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// The field's name.
    pub name: String,
    /// The file's name, if the part is one.
    pub filename: Option<String>,
    /// What the content is said to be.
    pub content_type: Option<String>,
}

/// What is wrong with a form, in words for its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

impl Parser {
    /// A parser for a form whose header `Content-Type` is this one.
    pub fn new(content_type: &str) -> Result<Self, Malformed> {
        let wrong = Malformed("expected the header Content-Type: multipart/form-data with a boundary");
        let (kind, rest) = content_type.split_once(';').ok_or(wrong)?;
        if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
            return Err(wrong);
        }
        let boundary = parameter(rest, "boundary").ok_or(wrong)?;
        let plain = boundary.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
        if !plain || !(1..=MAX_BOUNDARY_BYTES).contains(&boundary.len()) {
            return Err(wrong);
        }
        let delimiter = Finder::new(format!("\r\n--{boundary}").as_bytes()).into_owned();
        // The first boundary has no line before it.
        Ok(Self { delimiter, buffer: BytesMut::from("\r\n"), state: State::Start })
    }

    /// Takes what came. All pieces have to be taken out before more is given.
    pub fn give(&mut self, bytes: &[u8]) {
        if self.state != State::Over {
            self.buffer.extend_from_slice(bytes);
        }
    }

    /// Whether the form is complete.
    pub fn is_over(&self) -> bool {
        self.state == State::Over
    }

    /// The next piece; `None` when more has to come first, or the form is over.
    pub fn piece(&mut self) -> Result<Option<Piece>, Malformed> {
        loop {
            match self.state {
                State::Start => {
                    let delimiter = self.delimiter.needle();
                    if self.buffer.len() < delimiter.len() {
                        return Ok(None);
                    }
                    if !self.buffer.starts_with(delimiter) {
                        return Err(Malformed("the form does not begin with its boundary"));
                    }
                    self.buffer.advance(delimiter.len());
                    self.state = State::Boundary;
                }
                State::Boundary => {
                    let Some(mark) = self.buffer.get(..2) else { return Ok(None) };
                    self.state = match mark {
                        b"\r\n" => State::Head,
                        b"--" => State::Over,
                        _ => return Err(Malformed("a boundary of the form is not followed by a line's end")),
                    };
                    self.buffer.advance(2);
                }
                State::Head => return self.head(),
                State::Content => return Ok(self.content()),
                State::Over => {
                    self.buffer.clear();
                    return Ok(None);
                }
            }
        }
    }

    fn head(&mut self) -> Result<Option<Piece>, Malformed> {
        let window = &self.buffer[..self.buffer.len().min(MAX_HEAD_BYTES)];
        let Some(end) = memchr::memmem::find(window, b"\r\n\r\n") else {
            let long = self.buffer.len() >= MAX_HEAD_BYTES;
            return if long {
                Err(Malformed("the head of a part of the form is too long"))
            } else {
                Ok(None)
            };
        };
        let head = self.buffer.split_to(end);
        self.buffer.advance(4);
        self.state = State::Content;
        read_head(&head).map(|head| Some(Piece::Part(head)))
    }

    fn content(&mut self) -> Option<Piece> {
        let delimiter = self.delimiter.needle().len();
        match self.delimiter.find(&self.buffer) {
            Some(0) => {
                self.buffer.advance(delimiter);
                self.state = State::Boundary;
                Some(Piece::End)
            }
            Some(end) => Some(Piece::Content(self.buffer.split_to(end).freeze())),
            None => {
                // What is left may be the beginning of the boundary.
                let sure = self.buffer.len().saturating_sub(delimiter - 1);
                (sure > 0).then(|| Piece::Content(self.buffer.split_to(sure).freeze()))
            }
        }
    }
}

fn read_head(bytes: &[u8]) -> Result<Head, Malformed> {
    let text =
        std::str::from_utf8(bytes).map_err(|_| Malformed("the head of a part of the form is not UTF-8"))?;
    let mut disposition = None;
    let mut content_type = None;
    for line in text.split("\r\n") {
        let (name, value) =
            line.split_once(':').ok_or(Malformed("a line in the head of a part of the form has no colon"))?;
        match name.trim().to_ascii_lowercase().as_str() {
            "content-disposition" => disposition = Some(value.trim()),
            "content-type" => content_type = Some(value.trim().to_owned()),
            _ => {}
        }
    }
    let wrong = Malformed("expected `Content-Disposition: form-data; name=\"…\"` in each part of the form");
    let (kind, rest) = disposition.and_then(|value| value.split_once(';')).ok_or(wrong)?;
    let name = parameter(rest, "name").ok_or(wrong)?;
    if !kind.trim().eq_ignore_ascii_case("form-data") {
        return Err(wrong);
    }
    Ok(Head { name, filename: parameter(rest, "filename"), content_type })
}

/// A parameter of a header's value. Clients write quotes in a quoted text as `\"` or, as browsers do, as `%22`.
fn parameter(mut rest: &str, wanted: &str) -> Option<String> {
    loop {
        rest = rest.trim_start_matches([' ', '\t', ';']);
        let (name, value) = rest.split_once('=')?;
        let (value, tail) = match value.trim_start().strip_prefix('"') {
            Some(quoted) => quoted_text(quoted)?,
            None => {
                let end = value.find(';').unwrap_or(value.len());
                (value[..end].trim().to_owned(), &value[end..])
            }
        };
        if name.trim().eq_ignore_ascii_case(wanted) {
            return Some(value.replace("%22", "\"").replace("%0D", "\r").replace("%0A", "\n"));
        }
        rest = tail;
    }
}

/// A text up to its closing quote, and what follows.
fn quoted_text(quoted: &str) -> Option<(String, &str)> {
    let mut text = String::new();
    let mut characters = quoted.char_indices().peekable();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((text, &quoted[at + 1..])),
            // A lone backslash is a part of the name: some systems' paths have them.
            '\\' if characters.peek().is_some_and(|(_, next)| *next == '"') => {
                text.push('"');
                characters.next();
            }
            other => text.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORM: &str = "--XX\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a \\\"b%22.txt\"\r\n\
        Content-Type: text/plain; charset=utf-8\r\nX-Other: 1\r\n\r\nline\r\n--X is content\r\n--XX\r\n\
        content-disposition: form-data; name=n\r\n\r\n\r\n--XX--\r\nepilogue --XX";

    type Parts = Vec<(Head, Vec<u8>)>;

    /// What comes out of a form that is given in pieces of this size, contents joined; and whether it is over.
    fn parts(form: &[u8], size: usize) -> Result<(Parts, bool), Malformed> {
        let mut parser = Parser::new("multipart/form-data; boundary=XX").unwrap();
        let mut parts = Parts::new();
        for chunk in form.chunks(size) {
            parser.give(chunk);
            while let Some(piece) = parser.piece()? {
                match piece {
                    Piece::Part(head) => parts.push((head, Vec::new())),
                    Piece::Content(bytes) => parts.last_mut().unwrap().1.extend_from_slice(&bytes),
                    Piece::End => {}
                }
            }
        }
        Ok((parts, parser.is_over()))
    }

    #[test]
    fn a_form_is_the_same_however_it_is_cut() {
        let head = Head {
            name: "file".to_owned(),
            filename: Some("a \"b\".txt".to_owned()),
            content_type: Some("text/plain; charset=utf-8".to_owned()),
        };
        let whole = vec![
            (head, b"line\r\n--X is content".to_vec()),
            (Head { name: "n".to_owned(), ..Head::default() }, Vec::new()),
        ];
        for size in 1..=FORM.len() {
            assert_eq!(parts(FORM.as_bytes(), size), Ok((whole.clone(), true)), "{size}");
        }
    }

    #[test]
    fn a_cut_form_is_not_over() {
        let end = FORM.find("--XX--").unwrap() + 5;
        for cut in 0..end {
            assert!(parts(&FORM.as_bytes()[..cut], 7).is_ok_and(|(_, over)| !over), "{cut}");
        }
    }

    #[test]
    fn malformed_forms_are_refused() {
        let disposition = "Content-Disposition: form-data; name=\"a\"\r\n";
        for form in [
            "preamble\r\n--XX\r\n".to_owned(),
            "--XY\r\n".to_owned(),
            "--XX \r\n".to_owned(),
            "--XXXX".to_owned(),
            "--XX\r\n\r\n\r\ncontent".to_owned(),
            "--XX\r\nno colon\r\n\r\n".to_owned(),
            "--XX\r\nContent-Type: text/plain\r\n\r\n".to_owned(),
            "--XX\r\nContent-Disposition: form-data\r\n\r\n".to_owned(),
            "--XX\r\nContent-Disposition: form-data; filename=\"x\"\r\n\r\n".to_owned(),
            "--XX\r\nContent-Disposition: attachment; name=\"a\"\r\n\r\n".to_owned(),
            "--XX\r\nContent-Disposition: form-data; name=\"a\r\n\r\n".to_owned(),
            format!("--XX\r\n{disposition}X: {}\r\n\r\n", "y".repeat(MAX_HEAD_BYTES)),
            format!("--XX\r\n{disposition}\r\nx\r\n--XX??"),
        ] {
            for size in [1, 5, 100_000] {
                assert!(parts(form.as_bytes(), size).is_err(), "{form:?}");
            }
        }
        assert!(parts(b"--XX\r\nContent-Disposition: form-data; name=\"\xff\"\r\n\r\n", 9).is_err());
    }

    #[test]
    fn a_boundary_is_a_short_plain_text() {
        for good in ["boundary=x", "charset=utf-8; boundary=\"a b\"", "BOUNDARY=----WebKit7"] {
            assert!(Parser::new(&format!("Multipart/Form-Data; {good}")).is_ok(), "{good}");
        }
        let long = format!("boundary={}", "x".repeat(71));
        for wrong in ["", "boundary=", "boundary=\"\"", "boundary=\"x", "bound=x", "boundary=é", &long] {
            assert!(Parser::new(&format!("multipart/form-data; {wrong}")).is_err(), "{wrong}");
        }
        for wrong in ["multipart/form-data", "multipart/mixed; boundary=x", "application/json; boundary=x"] {
            assert!(Parser::new(wrong).is_err(), "{wrong}");
        }
    }
}
