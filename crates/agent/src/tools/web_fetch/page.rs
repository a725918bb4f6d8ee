//! What of a page is for reading: text, as it is or out of HTML.

/// Elements whose content nobody reads.
const SKIPPED: [&str; 6] = ["script", "style", "noscript", "template", "svg", "iframe"];
/// Elements that stand on lines of their own.
const BLOCKS: [&str; 22] = [
    "address",
    "article",
    "aside",
    "blockquote",
    "br",
    "dd",
    "div",
    "dl",
    "dt",
    "figure",
    "footer",
    "form",
    "header",
    "hr",
    "main",
    "nav",
    "ol",
    "p",
    "pre",
    "section",
    "table",
    "ul",
];
/// The longest entity that is looked for, in bytes.
const MAX_ENTITY: usize = 10;

/// The text of a page, or why it has none.
pub fn text(content_type: &str, bytes: &[u8]) -> Result<String, String> {
    let kind = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let content = String::from_utf8_lossy(bytes);
    let is_html = kind.contains("html") || (kind.is_empty() && content.trim_start().starts_with('<'));
    if is_html {
        return Ok(of_html(&content));
    }
    let is_text = kind.is_empty()
        || kind.starts_with("text/")
        || ["json", "xml", "javascript", "yaml"].iter().any(|part| kind.contains(part));
    if is_text && memchr::memchr(0, bytes).is_none() {
        return Ok(content.into_owned());
    }
    let kind: String = kind.chars().take(60).collect();
    Err(format!("the page is no text but {kind:?}; fetch it with curl in Bash if you need it"))
}

/// Takes the text out of HTML: headings, lists and links keep a mark.
fn of_html(html: &str) -> String {
    // Of the same length, for names of elements in any case.
    let lower = html.to_ascii_lowercase();
    let mut out = Text::default();
    let mut links: Vec<Option<String>> = Vec::new();
    let mut at = 0;
    while let Some(open) = html[at..].find('<').map(|found| at + found) {
        out.words(&html[at..open]);
        if lower[open..].starts_with("<!--") {
            at = lower[open..].find("-->").map_or(html.len(), |end| open + end + 3);
            continue;
        }
        let Some(end) = lower[open..].find('>').map(|found| open + found) else {
            at = html.len();
            break;
        };
        let tag = &lower[open + 1..end];
        let (closes, tag) = tag.strip_prefix('/').map_or((false, tag), |tag| (true, tag));
        let name: &str = tag.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default();
        at = end + 1;
        match name {
            name if !closes && SKIPPED.contains(&name) => {
                let close = format!("</{name}");
                at = lower[at..].find(&close).map_or(html.len(), |found| at + found);
            }
            "a" if !closes => {
                let link =
                    attribute(&html[open + 1..end], tag, "href").filter(|link| link.starts_with("http"));
                if link.is_some() {
                    out.mark("[");
                }
                links.push(link);
            }
            "a" => {
                if let Some(Some(link)) = links.pop() {
                    out.close(&format!("]({link})"));
                }
            }
            "li" if !closes => out.line("- "),
            "tr" | "title" => out.line(""),
            "td" | "th" if closes => out.close(" | "),
            name if name.len() == 2
                && name.starts_with('h')
                && name.ends_with(|c: char| c.is_ascii_digit()) =>
            {
                out.line(if closes { "" } else { "## " });
            }
            name if BLOCKS.contains(&name) => out.line(""),
            _ => (),
        }
    }
    out.words(&html[at..]);
    out.0.trim().to_owned()
}

/// The value of an attribute; `lower` is the same tag in lower case, without what comes before its end.
fn attribute(tag: &str, lower: &str, name: &str) -> Option<String> {
    let from = lower.find(&format!("{name}="))? + name.len() + 1;
    let from = tag.len() - lower.len() + from;
    let value = tag.get(from..)?;
    let value = match value.chars().next()? {
        quote @ ('"' | '\'') => value[1..].split(quote).next()?,
        _ => value.split_whitespace().next()?,
    };
    Some(decoded(value).chars().filter(|c| !c.is_control() && *c != ')').take(2_000).collect())
}

/// Text with single spaces and at most one empty line.
#[derive(Default)]
struct Text(String);

impl Text {
    fn words(&mut self, text: &str) {
        let text = decoded(text);
        if text.starts_with(char::is_whitespace) && !self.0.is_empty() && !self.0.ends_with([' ', '\n', '['])
        {
            self.0.push(' ');
        }
        let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        self.0.push_str(&words);
        if !words.is_empty() && text.ends_with(char::is_whitespace) {
            self.0.push(' ');
        }
    }

    fn mark(&mut self, mark: &str) {
        self.0.push_str(mark);
    }

    fn close(&mut self, mark: &str) {
        self.0.truncate(self.0.trim_end_matches(' ').len());
        self.0.push_str(mark);
    }

    fn line(&mut self, begin: &str) {
        self.0.truncate(self.0.trim_end_matches(' ').len());
        if !self.0.is_empty() && !self.0.ends_with('\n') {
            self.0.push('\n');
        }
        self.0.push_str(begin);
    }
}

fn decoded(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let window = &rest.as_bytes()[1..rest.len().min(MAX_ENTITY)];
        let entity = memchr::memchr(b';', window).and_then(|end| Some((rest.get(1..=end)?, end + 2)));
        match entity.and_then(|(name, length)| Some((meaning(name)?, length))) {
            Some((c, length)) => {
                out.push(c);
                rest = &rest[length..];
            }
            None => {
                out.push('&');
                rest = &rest[1..];
            }
        }
    }
    out.push_str(rest);
    out
}

fn meaning(entity: &str) -> Option<char> {
    let number = |digits: &str, radix: u32| u32::from_str_radix(digits, radix).ok().and_then(char::from_u32);
    match entity {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        "nbsp" => Some(' '),
        "ndash" | "mdash" => Some('–'),
        "hellip" => Some('…'),
        _ => match entity.strip_prefix('#')? {
            hex if hex.starts_with(['x', 'X']) => number(&hex[1..], 16),
            digits => number(digits, 10),
        },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn html_is_taken_apart() {
        let html = "<!DOCTYPE html><HTML><head><title>The  T</title><style>p{}</style></head><body><!-- no -->\
            <H1>Head</H1><p>Some <b>bold</b>\n text &amp; more&#33; <a href='https://e.com/?a=1&amp;b'>a link </a>, <a href=/x>local</a>.</p>\
            <ul><li>one<li>two</ul><script>if (a < b) {}</SCRIPT><table><tr><td>x</td><td>y</td></tr></table>end &unknown; &";
        assert_eq!(
            text("text/html; charset=utf-8", html.as_bytes()).unwrap(),
            "The T\n## Head\nSome bold text & more! [a link](https://e.com/?a=1&b), local.\n- one\n- two\nx | y |\nend &unknown; &"
        );
    }

    #[test]
    fn other_kinds() {
        assert_eq!(text("application/json", b"{\"a\": 1}").unwrap(), "{\"a\": 1}");
        assert_eq!(text("", b"<p>x").unwrap(), "x");
        for (kind, bytes) in
            [("image/png", b"x".as_slice()), ("application/pdf", b"x"), ("text/plain", b"a\0b")]
        {
            assert!(text(kind, bytes).is_err(), "{kind}");
        }
    }

    #[test]
    fn what_never_ends_ends() {
        for html in [
            "<".repeat(1_000_000),
            "<script>".repeat(200_000),
            "<a href=".repeat(200_000),
            "<!--".repeat(300_000),
            "&".repeat(1_000_000),
        ] {
            let _ = text("text/html", html.as_bytes()).unwrap();
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(html in "[<>/a!\\-\"'=&;#x héöscript]{0,200}") {
            let _ = text("text/html", html.as_bytes());
        }
    }
}
