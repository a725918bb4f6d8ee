//! API keys: `sk-wardian-<id>-<256 bits>`. The store knows only a hash of the secret.

use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use wardian_protocol::{KeyId, OrgId};
use wardian_store::{NewKey, Scope, Store};

/// What every key begins with.
pub const PREFIX: &str = "sk-wardian-";
/// Hexadecimal digits of the secret.
const SECRET_DIGITS: usize = 64;
/// The longest text that is looked at as a key.
const MAX_KEY_BYTES: usize = 160;

/// A key to be made.
#[derive(Clone, Debug)]
pub struct KeySpec {
    /// A name for people.
    pub name: String,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// The user that everything done with it belongs to.
    pub user: Option<String>,
}

/// Makes a key and stores its hash. The text that is returned is nowhere else: show it once.
///
/// # Errors
/// When the store does not take it.
pub async fn create(
    store: &dyn Store,
    org_id: &OrgId,
    spec: KeySpec,
    at: jiff::Timestamp,
) -> Result<(KeyId, SecretString), wardian_store::Error> {
    let (id, text) = generate();
    let key = NewKey {
        id: id.clone(),
        org_id: org_id.clone(),
        name: spec.name,
        scopes: spec.scopes,
        user_id: spec.user,
        secret_sha256: hash(text.expose_secret()),
        created_at: at,
    };
    store.create_key(key).await?;
    Ok((id, text))
}

/// The public id in a text that has the shape of a key.
#[must_use]
pub fn id_of(text: &str) -> Option<KeyId> {
    if text.len() > MAX_KEY_BYTES {
        return None;
    }
    let (id, secret) = text.strip_prefix(PREFIX)?.split_once('-')?;
    let hexadecimal = secret.len() == SECRET_DIGITS && secret.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !hexadecimal { None } else { format!("key_{id}").parse().ok() }
}

/// What the store keeps of a key: 256 random bits need no salt and no slow hash.
#[must_use]
pub fn hash(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

fn generate() -> (KeyId, SecretString) {
    let id = KeyId::from_random(crate::random_bits());
    let digits = id.as_str().trim_start_matches("key_");
    let secret: String = crate::random_bits::<32>().iter().map(|byte| format!("{byte:02x}")).collect();
    let text = format!("{PREFIX}{digits}-{secret}");
    (id, text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_tells_its_id_and_nothing_else_does() {
        let (id, text) = generate();
        let text = text.expose_secret();
        assert_eq!(id_of(text), Some(id));
        let cut = &text[..text.len() - 1];
        let long = "x".repeat(10_000);
        for wrong in
            ["", "sk-wardian-", cut, "sk-ant-x-y", &long, &text.replace("sk-wardian-", "sk-wardian-../")]
        {
            assert_eq!(id_of(wrong), None, "{wrong}");
        }
    }
}
