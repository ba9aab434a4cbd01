//! Whom the command runs as.

use std::ffi::CString;

use anyhow::{Context as _, anyhow};
use nix::unistd::{Gid, Uid};

/// Whom the command runs as.
#[derive(Clone, Debug)]
pub struct User {
    pub(super) name: CString,
    pub(super) uid: Uid,
    pub(super) gid: Gid,
}

impl User {
    /// User and group, by number.
    pub fn ids(&self) -> (u32, u32) {
        (self.uid.as_raw(), self.gid.as_raw())
    }

    /// Looks a user up by name or number. Errors: unknown user, unreadable user database.
    pub fn find(name: &str) -> anyhow::Result<Self> {
        let user = match (nix::unistd::User::from_name(name), name.parse().ok()) {
            (Ok(Some(user)), _) => Some(user),
            (_, Some(uid)) => nix::unistd::User::from_uid(Uid::from_raw(uid)).ok().flatten(),
            (Err(e), None) => return Err(e).context("cannot read the user database"),
            (Ok(None), None) => None,
        };
        match (user, name.parse()) {
            (Some(user), _) => Ok(Self { name: CString::new(user.name)?, uid: user.uid, gid: user.gid }),
            // A number without an entry is still a valid id, as for chown.
            (None, Ok(id)) => {
                Ok(Self { name: CString::new(name)?, uid: Uid::from_raw(id), gid: Gid::from_raw(id) })
            }
            (None, Err(_)) => Err(anyhow!("there is no user named {name}")),
        }
    }
}
