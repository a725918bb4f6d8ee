//! Where the ids that a request makes come from: a request that is repeated makes the same ones.

use sha2::{Digest, Sha256};
use wardian_protocol::Id;
use wardian_protocol::id::Kind;

/// 128 bits that belong to one request. A request with an `Idempotency-Key` gets the same each time it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed {
    bits: [u8; 16],
    again: bool,
}

impl Seed {
    /// A seed of a request that comes once.
    pub fn random() -> Self {
        Self { bits: crate::random_bits(), again: false }
    }

    /// The seed that belongs to an `Idempotency-Key`. `again`: a first try may have done all, some or nothing.
    pub const fn kept(bits: [u8; 16], again: bool) -> Self {
        Self { bits, again }
    }

    /// Whether an earlier try of the same request died half-way: what it was to make may be there already.
    pub const fn is_again(self) -> bool {
        self.again
    }

    /// The id number `number` that the request makes.
    pub fn id<K: Kind>(self, number: u32) -> Id<K> {
        let digest = Sha256::new().chain_update(self.bits).chain_update(number.to_be_bytes()).finalize();
        let mut bits = [0; 16];
        bits.copy_from_slice(&digest[..16]);
        Id::from_random(bits)
    }
}

#[cfg(test)]
mod tests {
    use wardian_protocol::{AgentId, EventId};

    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_ids_and_no_two_are_alike() {
        let seed = Seed::kept([7; 16], false);
        let first: EventId = seed.id(0);
        assert_eq!(first, Seed::kept([7; 16], true).id(0));
        assert_ne!(first, seed.id(1));
        assert_ne!(first, Seed::kept([8; 16], false).id(0));
        let agent: AgentId = seed.id(0);
        assert!(agent.as_str().starts_with("agent_"));
    }
}
