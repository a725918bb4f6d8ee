//! Tests of the command line.

use super::*;

fn args(arguments: &[&str]) -> Result<Args, Complaint> {
    match parse(arguments.iter().map(OsString::from))? {
        Invocation::Run(args) => Ok(*args),
        Invocation::Help | Invocation::Version => Err("help or version".to_owned()),
    }
}

#[test]
fn both_styles_and_both_spellings_are_read() {
    for arguments in [
        &[
            "--output-format",
            "stream-json",
            "--verbose",
            "--input-format",
            "stream-json",
            "--model=m",
            "--allowedTools=Read,Bash(git log, *)",
            "--max-turns=3",
            "--max-budget-usd=0.5",
            "--system-prompt=",
        ][..],
        &[
            "--output-format=stream-json",
            "--verbose",
            "--input-format=stream-json",
            "--model",
            "m",
            "--allowed-tools",
            "Read Bash(git log, *)",
            "--max-turns",
            "3",
            "--max-budget-usd",
            "0.5",
            "--system-prompt",
            "",
        ],
    ] {
        let args = args(arguments).unwrap();
        assert!(args.stream_input);
        assert_eq!(args.output, OutputFormat::StreamJson);
        assert_eq!(args.model.as_deref(), Some("m"));
        assert_eq!(args.allowed_tools, ["Read", "Bash(git log, *)"]);
        assert_eq!(args.max_turns, Some(3));
        assert_eq!(args.max_budget, Some(NanoUsd(500_000_000)));
        assert_eq!(args.system_prompt.as_deref(), Some(""));
    }
}

#[test]
fn tools_may_be_none_some_or_all() {
    assert_eq!(args(&["--tools="]).unwrap().tools, ToolSet::Only(Vec::new()));
    assert_eq!(args(&["--tools", ""]).unwrap().tools, ToolSet::Only(Vec::new()));
    assert_eq!(args(&["--tools=default"]).unwrap().tools, ToolSet::Standard);
    let some = ToolSet::Only(vec!["Read".to_owned(), "Bash".to_owned()]);
    assert_eq!(args(&["--tools=Read,Bash"]).unwrap().tools, some);
}

#[test]
fn prompts_stand_alone() {
    assert_eq!(args(&["-p", "do it"]).unwrap().prompt.as_deref(), Some("do it"));
    assert_eq!(args(&["-p", "--", "--odd"]).unwrap().prompt.as_deref(), Some("--odd"));
    assert!(args(&["do", "it"]).unwrap_err().contains("more than one prompt"));
}

#[test]
fn what_changes_nothing_is_taken() {
    for flag in [
        "--setting-sources=",
        "--no-session-persistence",
        "--debug",
        "--debug=api",
        "--bare",
        "--mcp-config={\"mcpServers\":{}}",
        "--strict-mcp-config",
        "--managed-settings={}",
    ] {
        args(&[flag]).unwrap_or_else(|complaint| panic!("{flag}: {complaint}"));
    }
}

#[test]
fn what_cannot_be_done_is_refused_by_name() {
    for (flag, expected) in [
        ("--x", "unknown option '--x'"),
        ("--x=1", "unknown option '--x'"),
        ("-z", "unknown option '-z'"),
        ("--verbose=1", "takes no value"),
        ("--model", "needs a value"),
        ("--resume", "needs a value"),
        ("-r", "needs a value"),
        ("--mcp-config={\"mcpServers\":7}", "Invalid MCP configuration"),
        ("--mcp-config=/nowhere/file.json", "Invalid MCP configuration"),
        ("--json-schema={", "takes JSON"),
        ("--setting-sources=moon", "cannot be 'moon'"),
        ("--task-budget=0", "at least 1"),
        ("--thinking-display=all", "one of summarized"),
        ("--agents=[]", "must be an object"),
        ("--agents={\"x\":{\"prompt\":\"p\"}}", "'description' is missing"),
        ("--permission-prompt-tool=mcp__x", "one of stdio, mcp__server__tool"),
        ("--permission-mode=yolo", "permission mode"),
        ("--max-turns=0", "at least 1"),
        ("--max-turns=-1", "failed to read it"),
        ("--max-budget-usd=0", "above 0"),
        ("--max-budget-usd=NaN", "above 0"),
        ("--session-id=../../etc", "must be a UUID"),
        ("--effort=extreme", "one of low"),
    ] {
        let complaint = args(&[flag]).unwrap_err();
        assert!(complaint.contains(expected), "{flag}: {complaint}");
    }
}

#[test]
fn amounts_as_javascript_writes_them() {
    assert_eq!(args(&["--max-budget-usd=1e-7"]).unwrap().max_budget, Some(NanoUsd(100)));
    assert_eq!(
        args(&["--max-budget-usd=0.30000000000000004"]).unwrap().max_budget,
        Some(NanoUsd(300_000_000))
    );
}
