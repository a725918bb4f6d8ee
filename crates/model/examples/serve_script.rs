//! Serves a script until its standard input ends or it is interrupted: `serve_script [SCRIPT] [LOG]`.
//!
//! The same as `wardian model`, without the rest of Wardian. `WARDIAN_MODEL_KEY` is the only key taken, if set.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;

use tokio::io::AsyncReadExt as _;
use wardian_model::{ModelArgs, ServerOptions, run};

#[tokio::main]
async fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1).map(std::path::PathBuf::from);
    let script = args.next();
    let expect_key = std::env::var("WARDIAN_MODEL_KEY").ok();
    let options = ServerOptions { expect_key, log: args.next(), keep_requests: 0 };
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    match run(ModelArgs { script, listen, options }, |line| println!("{line}"), ended()).await {
        Ok(summary) => {
            eprintln!("{} requests, {} replies unused", summary.requests, summary.unused_replies);
            ExitCode::SUCCESS
        }
        Err(error) => {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
            eprintln!("failed to {error}{}", cause.unwrap_or_default());
            ExitCode::FAILURE
        }
    }
}

async fn ended() {
    let mut ignored = Vec::new();
    let input = async {
        let mut stdin = tokio::io::stdin();
        while stdin.read_buf(&mut ignored).await.is_ok_and(|read| read > 0) {
            ignored.clear();
        }
    };
    tokio::select! {
        () = input => (),
        _ = tokio::signal::ctrl_c() => (),
    }
}
