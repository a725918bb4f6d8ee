//! The crate at its border: real sandboxes, hostile programs in them.

mod it {
    mod basics;
    mod execs;
    mod isolation;
    mod lifecycle;
    mod limits;
    mod protocol;
    mod shown;
    pub mod support;
    mod unprivileged;
    mod way_out;
}

/// Every file of the folder is a module above.
#[test]
fn no_test_file_is_forgotten() {
    let source = include_str!("it.rs");
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it");
    for entry in std::fs::read_dir(folder).expect("the folder is there") {
        let name = entry.expect("it can be read").file_name().into_string().expect("plain names");
        let module = name.trim_end_matches(".rs");
        assert!(source.contains(&format!("mod {module};")), "{name} is no module of it.rs");
    }
}
