//! `wardian-guest launcher` makes sandboxes for one server; `wardian-guest guest` is the first process in each of them.

fn main() -> std::process::ExitCode {
    wardian_sandbox::guest_main(std::env::args_os().nth(1).as_deref())
}
