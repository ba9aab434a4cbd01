//! `--flight` of `watch` and `serve`.

use anyhow::Context as _;

use vmaudit_user::os::flight_folder::FlightFolder;
use vmaudit_user::session::Sink as _;
use vmaudit_user::session::flight::Flight;

use crate::cli::flight::FlightArgs;

/// Opens the folder, before anything is attached. Errors: it is none that a file can be written to.
pub fn folder(args: &FlightArgs) -> anyhow::Result<Option<FlightFolder>> {
    let open = |path: &std::path::PathBuf| {
        FlightFolder::open(path)
            .with_context(|| format!("the flight recorder cannot write to {}", path.display()))
    };
    args.flight_dir.as_ref().map(open).transpose()
}

/// What a session that went well exits with: 1 when a stretch could not be kept, which was said when it was so.
pub fn status(flight: Option<&Flight>) -> i32 {
    i32::from(flight.is_some_and(|it| it.complaint().is_some()))
}
