//! Users by name and number, and whose name is hidden in what is shared.

use anyhow::bail;
use nix::unistd::{Uid, User, getuid};

use crate::domain::application::Anonymizer;

/// The number of a user, by name or number. Errors: there is no such user.
pub fn resolve_user(name: &str) -> anyhow::Result<u32> {
    if let Ok(uid) = name.parse() {
        return Ok(uid);
    }
    match User::from_name(name) {
        Ok(Some(user)) => Ok(user.uid.as_raw()),
        _ => bail!("there is no user {name}"),
    }
}

/// The name of a user; its number where it has none.
pub fn user_name(uid: u32) -> String {
    match User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => user.name,
        _ => uid.to_string(),
    }
}

/// Hides the names of the person at the keyboard, unless they are to `stay`.
pub fn anonymizer(stay: bool) -> Anonymizer {
    if stay { Anonymizer::off() } else { Anonymizer::new(own_names()) }
}

/// Names of the person at the keyboard: the user, and who called sudo. Accounts of services (`postgres`, `jenkins`) are
/// nobody's name, and often the program's.
pub fn own_names() -> Vec<String> {
    let mut names: Vec<String> = ["SUDO_USER", "USER", "LOGNAME"]
        .iter()
        .filter_map(|name| std::env::var(name).ok())
        .filter(|name| name != "root")
        .collect();
    names.push(user_name(getuid().as_raw()));
    names.sort();
    names.dedup();
    names.retain(|name| !matches!(User::from_name(name), Ok(Some(user)) if is_service(user.uid)));
    names
}

/// The usual limit (login.defs: UID_MIN); `nobody` is none either.
fn is_service(uid: Uid) -> bool {
    uid.as_raw() < 1000 || uid.as_raw() == 65534
}
