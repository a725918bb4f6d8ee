//! The event stream decoder: the same events whatever the chunks.

use proptest::prelude::*;
use wardian_protocol::sse::{MAX_EVENT_BYTES, SseDecoder, SseError, SseEvent};

fn decode<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Vec<SseEvent> {
    let mut decoder = SseDecoder::default();
    let mut events = Vec::new();
    for chunk in chunks {
        decoder.feed(chunk, &mut events).unwrap();
    }
    events.extend(decoder.finish());
    events
}

fn event(event: &str, data: &str) -> SseEvent {
    SseEvent { event: event.to_owned(), data: data.to_owned(), id: None }
}

#[test]
fn fields_lines_and_comments() {
    for (text, events) in [
        ("event: a\ndata: 1\n\n", vec![event("a", "1")]),
        ("event: a\r\ndata: 1\r\n\r\n", vec![event("a", "1")]),
        ("event: a\rdata: 1\r\r", vec![event("a", "1")]),
        ("event: a\r\ndata: 1\r\n\ndata: 2\n\r\n", vec![event("a", "1"), event("", "2")]),
        ("\u{feff}data: 1\n\n", vec![event("", "1")]),
        ("data: 1\n\n\u{feff}data: 2\n\n", vec![event("", "1")]),
        (": comment\n:\ndata: 1\n: more\n\n", vec![event("", "1")]),
        ("data: 1\ndata: 2\ndata\ndata:\n\n", vec![event("", "1\n2\n\n")]),
        ("data:1\n\ndata:  2\n\n", vec![event("", "1"), event("", " 2")]),
        ("data: a: b\n\n", vec![event("", "a: b")]),
        ("data\n\n", vec![event("", "")]),
        ("event: a\nevent: b\ndata: 1\n\n", vec![event("b", "1")]),
        // Without data there is no event, and its name does not go to the next.
        ("event: a\n\ndata: 1\n\n", vec![event("", "1")]),
        ("retry: 5\nunknown: x\nEvent: A\n data: x\ndata: 1\n\n", vec![event("", "1")]),
        ("\n\n\n", vec![]),
        ("", vec![]),
    ] {
        assert_eq!(decode([text.as_bytes()]), events, "{text:?}");
    }
}

#[test]
fn ids_belong_to_their_event() {
    let ids = |text: &str| decode([text.as_bytes()]).into_iter().map(|event| event.id).collect::<Vec<_>>();
    assert_eq!(ids("id: 7\ndata: 1\n\ndata: 2\n\n"), [Some("7".to_owned()), None]);
    assert_eq!(ids("id\ndata: 1\n\n"), [Some(String::new())]);
    assert_eq!(ids("id: a\0b\ndata: 1\n\n"), [None]);
    assert_eq!(ids("id: 1\nid: 2\ndata: 1\n\n"), [Some("2".to_owned())]);
}

/// gateway reference, failure 30: the last bytes before the end are not dropped.
#[test]
fn the_end_comes_without_a_blank_line() {
    assert_eq!(decode([&b"event: a\ndata: {}\n"[..]]), [event("a", "{}")]);
    assert_eq!(decode([&b"event: a\ndata: {\"x\":1}"[..]]), [event("a", "{\"x\":1}")]);
    assert_eq!(decode([&b"data: {\ndata: }"[..]]), [event("", "{\n}")]);
    // A line cut in the middle is not taken for a whole one.
    assert_eq!(decode([&b"event: a\ndata: {\"x\":1"[..]]), []);
    assert_eq!(decode([&b"data: {}\ndata: {"[..]]), [event("", "{}")]);
    assert_eq!(decode([&b"data: {}\neve"[..]]), [event("", "{}")]);
    assert_eq!(decode([&b"event: a"[..]]), []);
    assert_eq!(decode([&b"data: {}\n\ndata"[..]]), [event("", "{}")]);
}

#[test]
fn an_event_has_a_largest_size() {
    let feed = |bytes: &[u8]| SseDecoder::default().feed(bytes, &mut Vec::new());
    let line = |length: usize| [b"data: ".as_slice(), &vec![b'x'; length - 6], b"\n\n"].concat();
    assert_eq!(feed(&line(MAX_EVENT_BYTES)), Ok(()));
    assert_eq!(feed(&line(MAX_EVENT_BYTES + 1)), Err(SseError::TooLarge));
    // Without a line end, in many lines, in a comment, byte by byte.
    assert_eq!(feed(&vec![b'x'; MAX_EVENT_BYTES + 1]), Err(SseError::TooLarge));
    assert_eq!(feed(&b"data: 0123456789\n".repeat(MAX_EVENT_BYTES / 10)), Err(SseError::TooLarge));
    assert_eq!(feed(&[b":".as_slice(), &vec![b'x'; MAX_EVENT_BYTES]].concat()), Err(SseError::TooLarge));
    let mut decoder = SseDecoder::default();
    let fed = (0..=MAX_EVENT_BYTES).try_for_each(|_| decoder.feed(b"x", &mut Vec::new()));
    assert_eq!(fed, Err(SseError::TooLarge));
    // Many small events are no large one.
    assert_eq!(feed(&b"data: 0123456789\n\n".repeat(MAX_EVENT_BYTES / 10)), Ok(()));
    assert_eq!(SseError::TooLarge.to_string(), "read the event stream: an event is over 1048576 bytes");
}

#[test]
fn text_that_is_no_utf8_is_replaced() {
    assert_eq!(decode([&b"data: a\xff\xfeb\xc3\n\n"[..]]), [event("", "a\u{fffd}\u{fffd}b\u{fffd}")]);
    // A character cut between chunks is whole again.
    assert_eq!(decode([&b"data: \xe2"[..], b"\x82", b"\xac\n\n"]), [event("", "€")]);
}

#[test]
fn every_single_cut_gives_the_same_events() {
    let text = "\u{feff}event: message_start\r\ndata: {\"a\":\"é€🦀\"}\r\n\r\n: ping\rid: 1\rdata: x\rdata: y\r\r\
        data: 1\n\nevent: b\ndata: {}\n";
    let whole = decode([text.as_bytes()]);
    assert_eq!(whole.len(), 4);
    for cut in 0..=text.len() {
        let (before, after) = text.as_bytes().split_at(cut);
        assert_eq!(decode([before, after]), whole, "cut at {cut}");
        assert_eq!(decode([before, b"", after]), whole, "cut at {cut}, empty chunk");
    }
    for size in 1..20 {
        assert_eq!(decode(text.as_bytes().chunks(size)), whole, "chunks of {size}");
    }
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop::sample::select(vec![
        &b"data: "[..],
        b"data",
        b"event: ",
        b"id: ",
        b":",
        b"\n",
        b"\r",
        b"\r\n",
        b"\n\n",
        b"{}",
        b"\xef\xbb\xbf",
        b"\xff",
        b"\xe2\x82\xac",
        b" ",
        b"x",
        b"\0",
        b"retry: 1",
    ]);
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn chunks_do_not_matter(bytes in bytes(), cuts in prop::collection::vec(0..200_usize, 0..10)) {
        let whole = decode([bytes.as_slice()]);
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        prop_assert_eq!(decode(cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]])), whole.clone());
        prop_assert_eq!(decode(bytes.chunks(1)), whole);
    }

    #[test]
    fn line_ends_do_not_matter(lines in prop::collection::vec("(data: |event: |id: |:|)[a-z]{0,4}", 0..20)) {
        let with = |end: &str| decode([lines.iter().map(|line| format!("{line}{end}")).collect::<String>().as_bytes()]);
        prop_assert_eq!(with("\n"), with("\r\n"));
        prop_assert_eq!(with("\n"), with("\r"));
    }
}
