//! What of two sessions is compared with each other: the same application in the same role. Pids are never the same.

/// Application and role.
pub type Key = (String, String);

/// An application is called like its program, wherever that lies; one of no known program like the process.
pub fn key(app: Option<&str>, comm: &str) -> Key {
    let app = app.unwrap_or(comm);
    (app.rsplit('/').next().unwrap_or(app).to_owned(), comm.to_owned())
}
