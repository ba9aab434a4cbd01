//! Which processes are meant.

/// What a process must be like; everything that is not said fits.
#[derive(Clone, Debug, Default)]
pub struct ProcessFilter {
    /// One of these; empty = any.
    pub pids: Vec<u32>,
    /// Of this owner.
    pub uid: Option<u32>,
    /// Its name contains this.
    pub comm: Option<String>,
    /// Its cgroup's path contains this.
    pub cgroup: Option<String>,
}

impl ProcessFilter {
    /// More must be known of a process than its number.
    pub fn asks_for_more(&self) -> bool {
        self.uid.is_some() || self.comm.is_some() || self.cgroup.is_some()
    }

    /// This owner fits.
    pub fn owner(&self, uid: u32) -> bool {
        self.uid.is_none_or(|wanted| wanted == uid)
    }

    /// This name fits.
    pub fn name(&self, comm: &str) -> bool {
        self.comm.as_ref().is_none_or(|wanted| comm.contains(wanted.as_str()))
    }

    /// This cgroup fits; an unknown one only where none is asked for.
    pub fn group(&self, cgroup: Option<&str>) -> bool {
        self.cgroup.as_ref().is_none_or(|wanted| cgroup.is_some_and(|path| path.contains(wanted.as_str())))
    }
}
