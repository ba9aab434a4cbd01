//! Code that no file has: where it lies, and which programs make it or interpret it.

use super::{Image, inside};

/// Generated code lives in memory without a file, or with one that has no name.
pub fn may_be_jitted(mapping: &str) -> bool {
    mapping.is_empty()
        || ["[anon", "/memfd:", "//anon", "/dev/zero"].iter().any(|start| mapping.starts_with(start))
}

/// A program that makes code or interprets it, and how it is brought to give the names.
pub struct Runtime {
    /// Beginnings of the names of its files.
    pub files: &'static [&'static str],
    /// What its generated code is called.
    pub code: &'static str,
    /// Its names are had so; `PID` stands for the process.
    pub names: &'static str,
    /// Its generated code keeps frame pointers always, or so.
    pub frame_pointers: FramePointers,
}

pub enum FramePointers {
    Always,
    If(&'static str),
    Unknown,
}

pub const RUNTIMES: [Runtime; 3] = [
    Runtime {
        files: &["libjvm.so"],
        code: "Java code",
        names: "run `jcmd PID Compiler.perfmap` (JDK 17 or later) while java runs and before vmaudit reports",
        frame_pointers: FramePointers::If("start java with -XX:+PreserveFramePointer"),
    },
    Runtime {
        files: &["node", "libnode.so"],
        code: "JavaScript code",
        names: "start node with --perf-basic-prof-only-functions",
        frame_pointers: FramePointers::Always,
    },
    Runtime {
        files: &["python3", "libpython3"],
        code: "Python code",
        names: "start Python 3.12 or later with -X perf",
        frame_pointers: FramePointers::Unknown,
    },
];

/// A file of the interpreter of Python.
pub fn is_python(name: &str) -> bool {
    RUNTIMES.iter().any(|runtime| runtime.interprets() && runtime.has(name))
}

impl Runtime {
    fn has(&self, name: &str) -> bool {
        let name = name.rsplit('/').next().unwrap_or_default();
        self.files.iter().any(|file| name.starts_with(file))
    }

    /// A file of it is in the image.
    pub fn runs_in(&self, image: &Image) -> bool {
        image.areas.iter().any(|area| self.has(&area.name))
    }

    /// It generates no code unless it is told to.
    pub fn interprets(&self) -> bool {
        self.code == "Python code"
    }

    /// The stack goes through a file of it.
    pub fn on(&self, stack: &[u64], image: &Image) -> bool {
        stack.iter().any(|&ip| image.area(inside(ip)).is_some_and(|area| self.has(&area.name)))
    }
}
