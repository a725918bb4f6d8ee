use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn caller(user: Option<&str>) -> Caller {
    Caller {
        org_id: wardian_protocol::OrgId::from_random([1; 16]),
        user_id: user.map(str::to_owned),
        key_id: None,
    }
}

fn request(change: impl FnOnce(&mut RunRequest)) -> RunRequest {
    let mut request = RunRequest::new(RequestId::from_random([2; 16]), "fix it");
    change(&mut request);
    request
}

fn checked(request: RunRequest) -> Result<Plan, Vec<FieldError>> {
    check(request, &caller(None), "sonnet", &RunLimits::DEFAULT, &RunLimits::CEILING)
}

fn fields(result: Result<Plan, Vec<FieldError>>) -> Vec<String> {
    match result {
        Ok(_) => Vec::new(),
        Err(errors) => errors.into_iter().map(|error| error.field).collect(),
    }
}

fn file(path: &str, bytes: usize) -> RunFile {
    RunFile { path: path.to_owned(), content: vec![b'x'; bytes] }
}

#[test]
fn a_plain_request_gets_the_defaults() {
    let plan = checked(request(|_| ())).unwrap();
    assert_eq!(plan.limits, RunLimits::DEFAULT);
    assert_ne!(plan.model, "sonnet", "the alias is resolved");
}

#[test]
fn each_wrong_field_is_named() {
    type Change = fn(&mut RunRequest);
    let rows: &[(&str, Change)] = &[
        ("prompt", |r| r.prompt = String::new()),
        ("prompt", |r| r.prompt = " \n ".to_owned()),
        ("prompt", |r| r.prompt = "x".repeat(MAX_PROMPT_BYTES + 1)),
        ("prompt", |r| r.prompt = "\u{1}".repeat(MAX_PROMPT_BYTES)),
        ("prompt", |r| {
            r.runtime = Runtime::Command(vec!["true".to_owned()]);
            r.prompt = "a\0b".to_owned();
        }),
        ("prompt", |r| {
            r.runtime = Runtime::Command(vec!["true".to_owned()]);
            r.prompt = "x".repeat(MAX_ELEMENT_BYTES + 1);
        }),
        ("system", |r| r.system = Some("x".repeat(MAX_SYSTEM_BYTES + 1))),
        ("system", |r| r.system = Some("\u{1}".repeat(MAX_SYSTEM_BYTES))),
        ("command", |r| r.runtime = Runtime::Command(vec![])),
        ("command", |r| r.runtime = Runtime::Command(vec![String::new()])),
        ("command", |r| r.runtime = Runtime::Command(vec!["x".to_owned(); MAX_COMMAND_ELEMENTS + 1])),
        ("command[1]", |r| r.runtime = Runtime::Command(vec!["x".to_owned(), "a\0".to_owned()])),
        ("command[0]", |r| r.runtime = Runtime::Command(vec!["x".repeat(MAX_ELEMENT_BYTES + 1)])),
        ("command", |r| r.runtime = Runtime::Command(vec!["x".repeat(MAX_ELEMENT_BYTES); 20])),
        ("allowed_tools[0]", |r| r.permissions = Permissions::Only(vec![String::new()])),
        ("allowed_tools[1]", |r| {
            r.permissions = Permissions::Only(vec!["Read".to_owned(), "x".repeat(MAX_RULE_BYTES + 1)]);
        }),
        ("allowed_tools", |r| r.permissions = Permissions::Only(vec!["Read".to_owned(); MAX_RULES + 1])),
        ("files[0].path", |r| r.files = vec![file("../x", 1)]),
        ("files[0].path", |r| r.files = vec![file("/etc/passwd", 1)]),
        ("files[0].path", |r| r.files = vec![file("a//b", 1)]),
        ("files[0].path", |r| r.files = vec![file("a/./b", 1)]),
        ("files[0].path", |r| r.files = vec![file("a/", 1)]),
        ("files[0].path", |r| r.files = vec![file("", 1)]),
        ("files[0].path", |r| r.files = vec![file("a\0b", 1)]),
        ("files[0].path", |r| r.files = vec![file(&"x".repeat(256), 1)]),
        ("files[0].path", |r| r.files = vec![file(&"x/".repeat(600), 1)]),
        ("files[1].path", |r| r.files = vec![file("a", 1), file("a", 1)]),
        ("files[1].path", |r| r.files = vec![file("a", 1), file("a/b", 1)]),
        ("files[0].content", |r| r.files = vec![file("a", MAX_FILE_BYTES + 1)]),
        ("files", |r| r.files = vec![file("a", MAX_FILE_BYTES), file("b", MAX_FILE_BYTES)]),
        ("files", |r| r.files = (0..=MAX_FILES).map(|n| file(&n.to_string(), 1)).collect()),
        ("user", |r| r.user = Some(String::new())),
        ("user", |r| r.user = Some("x".repeat(129))),
        ("user", |r| r.user = Some("a\nb".to_owned())),
        ("limits.max_turns", |r| r.limits.max_turns = Some(0)),
        ("limits.max_turns", |r| r.limits.max_turns = Some(1001)),
        ("limits.max_cost_usd", |r| r.limits.max_cost = Some(NanoUsd(-1))),
        ("limits.max_cost_usd", |r| r.limits.max_cost = Some(NanoUsd::from_usd(101))),
        ("limits.timeout_seconds", |r| r.limits.timeout = Some(Duration::ZERO)),
        ("limits.timeout_seconds", |r| r.limits.timeout = Some(Duration::from_secs(6 * 3600 + 1))),
        ("model", |r| r.model = Some(String::new())),
        ("model", |r| r.model = Some("--help".to_owned())),
        ("model", |r| r.model = Some("a b".to_owned())),
        ("model", |r| r.model = Some("x".repeat(129))),
        ("cwd", |r| r.place = Place::Local(PathBuf::from("relative"))),
    ];
    for (index, (field, change)) in rows.iter().enumerate() {
        assert_eq!(fields(checked(request(change))), [*field], "row {index}");
    }
}

#[test]
fn all_wrong_fields_are_named_at_once() {
    let wrong = request(|r| {
        r.prompt = String::new();
        r.user = Some(String::new());
        r.limits.max_turns = Some(0);
    });
    assert_eq!(fields(checked(wrong)), ["prompt", "user", "limits.max_turns"]);
}

#[test]
fn a_bound_caller_is_that_user_and_no_other() {
    let as_user = |asked: Option<&str>| {
        let asked = request(|r| r.user = asked.map(str::to_owned));
        check(asked, &caller(Some("ann")), "sonnet", &RunLimits::DEFAULT, &RunLimits::CEILING)
    };
    assert_eq!(as_user(None).unwrap().user.as_deref(), Some("ann"));
    assert_eq!(as_user(Some("ann")).unwrap().user.as_deref(), Some("ann"));
    assert_eq!(fields(as_user(Some("bob"))), ["user"]);
}

proptest! {
    #[test]
    fn no_accepted_path_leaves_the_workspace(path in "[a./\\\\\0 ]{0,12}") {
        if check_path(&path).is_ok() {
            let mut depth = 0i32;
            for part in std::path::Path::new(&path).components() {
                match part {
                    std::path::Component::Normal(_) => depth += 1,
                    other => prop_assert!(false, "{other:?}"),
                }
            }
            prop_assert!(depth > 0);
        }
    }

    #[test]
    fn a_text_that_fits_makes_a_line_that_fits(text in "[\\PC\u{0}-\u{1f}\"\\\\]{0,200}") {
        let escaped = serde_json::to_string(&text).unwrap().len();
        let counted: usize = text.bytes().map(|b| match b { b'"' | b'\\' | b'\n' | b'\r' | b'\t' => 2, 0..=0x1f => 6, _ => 1 }).sum();
        prop_assert!(escaped <= counted + 2);
    }
}
