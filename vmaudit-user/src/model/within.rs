//! What a process is a part of, as its cgroups tell.

use serde::{Deserialize, Serialize};

/// Unit, container and pod of one process; `None` outside of any.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Within {
    /// systemd unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// Container: its id, or its name where the runtime knows no other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// uid of the Kubernetes pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
}

impl Within {
    /// Nothing is known.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
