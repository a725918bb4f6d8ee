//! Which host user id a tenant's sandboxes have, as root.
//!
//! The first choice is a hash of the tenant's name, so that servers on one host agree without talking; a second tenant
//! with the same hash gets the next free id. What was given is written down beside the launcher's state and never
//! given again.

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::error::Error;
use crate::spec::stable_hash;

/// Above what distributions, systemd (`0x6fff_ffff`) and subordinate ids use, below the sign bit.
const FIRST: u32 = 0x7000_0000;
const COUNT: u32 = 0x0fff_0000;
/// One line for each tenant: the id, and the name in hexadecimal, because a name may hold anything.
const FILE: &str = "tenants";

#[derive(Debug)]
pub(super) struct Tenants {
    path: PathBuf,
    known: Mutex<Option<HashMap<String, u32>>>,
}

impl Tenants {
    pub(super) fn new(state_dir: &Path) -> Self {
        Self { path: state_dir.join(FILE), known: Mutex::new(None) }
    }

    pub(super) fn uid(&self, tenant: &str) -> Result<u32, Error> {
        let failed =
            |error| Error::io(format!("keep the tenants' user ids in {}", self.path.display()))(error);
        // Poisoned means a panic between reading and inserting: the map is whole all the same.
        let mut known = self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let known = match &mut *known {
            Some(known) => known,
            empty => empty.insert(read(&self.path).map_err(failed)?),
        };
        let key = tenant.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
        if let Some(&uid) = known.get(&key) {
            return Ok(uid);
        }
        if known.len() >= (COUNT / 2) as usize {
            return Err(Error::Capacity { what: "the number of tenants", limit: u64::from(COUNT / 2) });
        }
        let mut place = (stable_hash(tenant.as_bytes()) % u64::from(COUNT)) as u32;
        while known.values().any(|&uid| uid == FIRST + place) {
            place = (place + 1) % COUNT;
        }
        let uid = FIRST + place;
        let mut file = fs::File::options().create(true).append(true).open(&self.path).map_err(failed)?;
        file.write_all(format!("{uid} {key}\n").as_bytes())
            .and_then(|()| file.sync_data())
            .map_err(failed)?;
        known.insert(key, uid);
        Ok(uid)
    }
}

fn read(path: &Path) -> std::io::Result<HashMap<String, u32>> {
    let content = match fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        other => other?,
    };
    // A line that was cut by a crash was never used: the id is given only after the line is on the disk.
    let complete = content.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
    Ok(complete
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(uid, key)| Some((key.to_owned(), uid.parse().ok()?)))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_kept_distinct_and_survive_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let tenants = Tenants::new(folder.path());
        let ids: Vec<u32> =
            ["", "a", "b", "a b\nc"].iter().map(|tenant| tenants.uid(tenant).unwrap()).collect();
        assert!(ids.iter().all(|&id| (FIRST..FIRST + COUNT).contains(&id)));
        assert_eq!(ids.iter().collect::<std::collections::HashSet<_>>().len(), 4);
        let again = Tenants::new(folder.path());
        assert_eq!(again.uid("a b\nc").unwrap(), ids[3]);
    }

    #[test]
    fn a_taken_place_is_passed_over_and_a_cut_line_ignored() {
        let folder = tempfile::tempdir().unwrap();
        let wanted = FIRST + (stable_hash(b"x") % u64::from(COUNT)) as u32;
        fs::write(folder.path().join(FILE), format!("{wanted} 79\n{} 7", wanted + 1)).unwrap();
        let tenants = Tenants::new(folder.path());
        assert_eq!(tenants.uid("y").unwrap(), wanted);
        assert_eq!(tenants.uid("x").unwrap(), wanted + 1);
    }
}
