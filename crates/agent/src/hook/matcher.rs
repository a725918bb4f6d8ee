//! What a hook is for.

use regex::Regex;

#[derive(Clone, Debug)]
pub(super) enum Matcher {
    All,
    Names(Vec<String>),
    Pattern(Regex),
}

impl Matcher {
    pub(super) fn read(text: Option<&str>) -> Self {
        let text = text.unwrap_or_default();
        if text.is_empty() || text == "*" {
            return Self::All;
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '|' | ',' | ' ');
        if text.chars().all(plain) {
            return Self::Names(text.split(['|', ',']).map(|name| name.trim().to_owned()).collect());
        }
        Regex::new(text).map_or(Self::All, Self::Pattern)
    }

    pub(super) fn matches(&self, subject: &str) -> bool {
        match self {
            Self::All => true,
            Self::Names(names) => names.iter().any(|name| name == subject),
            Self::Pattern(pattern) => pattern.is_match(subject),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Matcher;

    #[test]
    fn matchers_read_names_lists_and_patterns() {
        for (matcher, tool, expected) in [
            (None, "Bash", true),
            (Some(""), "Bash", true),
            (Some("*"), "Bash", true),
            (Some("Bash"), "Bash", true),
            (Some("Bash"), "BashX", false),
            (Some("Read|Write"), "Write", true),
            (Some("Read|Write"), "Edit", false),
            (Some("mcp__.*"), "mcp__lab__add", true),
            (Some("mcp__.*"), "Bash", false),
            (Some("Edit, Bash"), "Bash", true),
            (Some("^B"), "Bash", true),
            (Some("ash"), "Bash", false),
            (Some("bash"), "Bash", false),
            (Some("(broken"), "Bash", true),
        ] {
            assert_eq!(Matcher::read(matcher).matches(tool), expected, "{matcher:?} {tool}");
        }
    }
}
