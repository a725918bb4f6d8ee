//! `wardian keys`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::anyhow;
use secrecy::ExposeSecret as _;
use wardian_protocol::KeyId;
use wardian_server::keys::{KeySpec, create};
use wardian_store::{KeyRecord, MAX_USER_BYTES, Scope, Store as _};

use crate::config::open_store;
use crate::failure::{FAILED, Failure, Outcome, print, setup, usage};
use crate::host;

/// API keys of the server. Each command may be used beside a running server.
#[derive(clap::Subcommand)]
pub enum Command {
    /// Make a key and print it, alone; it is shown this once
    Create {
        /// The server's data folder
        #[arg(long, env = "WARDIAN_DATA_DIR", value_name = "DIR", default_value = "wardian-data")]
        data_dir: PathBuf,
        /// A name, to know it again in the list
        #[arg(long, value_name = "N", default_value = "")]
        name: String,
        /// What it may do: admin, sessions, read or gateway; may be given again [default: sessions read]
        #[arg(long = "scope", value_name = "S", value_delimiter = ',')]
        scopes: Vec<Scope>,
        /// Everything done with it belongs to this user
        #[arg(long, value_name = "U")]
        user: Option<String>,
    },
    /// List the keys, without their secrets
    List {
        /// The server's data folder
        #[arg(long, env = "WARDIAN_DATA_DIR", value_name = "DIR", default_value = "wardian-data")]
        data_dir: PathBuf,
    },
    /// Revoke a key; requests that carry it are refused from now on
    Revoke {
        /// The server's data folder
        #[arg(long, env = "WARDIAN_DATA_DIR", value_name = "DIR", default_value = "wardian-data")]
        data_dir: PathBuf,
        /// The key's id, `key_…`, as `wardian keys list` shows it
        id: KeyId,
    },
}

/// Does it.
pub async fn keys(command: Command) -> Outcome {
    let failed = |error: wardian_store::Error| setup(error);
    match command {
        Command::Create { data_dir, name, scopes, user } => {
            let spec = KeySpec { name, scopes: scopes_or_default(scopes), user: checked_user(user)? };
            let store = open_store(&data_dir)?;
            let org_id = store.default_org().await.map_err(failed)?;
            if let Some(user) = &spec.user {
                store.ensure_user(&org_id, user).await.map_err(failed)?;
            }
            let (_, key) = create(&store, &org_id, spec, host::now()).await.map_err(failed)?;
            print(key.expose_secret())?;
            Ok(ExitCode::SUCCESS)
        }
        Command::List { data_dir } => {
            let store = open_store(&data_dir)?;
            let org_id = store.default_org().await.map_err(failed)?;
            for key in store.keys(&org_id).await.map_err(failed)? {
                print(&row(&key))?;
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Revoke { data_dir, id } => {
            let store = open_store(&data_dir)?;
            let org_id = store.default_org().await.map_err(failed)?;
            if store.revoke_key(&org_id, &id, host::now()).await.map_err(failed)? {
                Ok(ExitCode::SUCCESS)
            } else {
                Err(usage(anyhow!("revoke {id}: there is no such key, or it is revoked already"))
                    .hint("`wardian keys list` shows the keys")
                    .code(FAILED))
            }
        }
    }
}

fn scopes_or_default(scopes: Vec<Scope>) -> Vec<Scope> {
    if scopes.is_empty() { vec![Scope::Sessions, Scope::Read] } else { scopes }
}

fn checked_user(user: Option<String>) -> Result<Option<String>, Failure> {
    match user {
        Some(user) if user.is_empty() || user.len() > MAX_USER_BYTES => Err(usage(anyhow!(
            "bind the key to a user: expected 1 to {MAX_USER_BYTES} bytes, found {}",
            user.len()
        ))),
        user => Ok(user),
    }
}

fn row(key: &KeyRecord) -> String {
    let scopes: Vec<String> = key.scopes.iter().map(ToString::to_string).collect();
    let state = key.revoked_at.map_or_else(|| "active".to_owned(), |at| format!("revoked {at}"));
    let user = key.user_id.as_deref().map(|user| format!("user {user}  ")).unwrap_or_default();
    format!("{}  {}  {}  {user}{}  {state}", key.id, key.created_at, scopes.join(","), key.name)
}
