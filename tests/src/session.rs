//! One run of the program under test, from its command line to its last word.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Write as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use vmaudit_user::model::report::{Process, Report};

use crate::{BACKSTOP, Own, Scratch, own, vmaudit, wait_for, workload};

/// A command line under construction.
///
/// stdout and stderr go to files, so that a process that outlives the session can keep them without holding us up.
pub struct Session {
    scratch: Scratch,
    program: PathBuf,
    words: Vec<OsString>,
    stdin: Vec<u8>,
    uid: Option<u32>,
    environment: Vec<(&'static str, String)>,
    /// Numbers of capabilities, given by the ambient set.
    caps: Vec<u32>,
    /// Where among the words the recording is asked for.
    recording: Option<usize>,
}

/// A session that runs.
pub struct Running {
    child: Guard,
    scratch: Scratch,
}

/// A child that does not outlive its test.
struct Guard(Child);

/// A session that has ended.
pub struct Done {
    /// How.
    pub status: ExitStatus,
    /// All of stdout.
    pub stdout: Vec<u8>,
    /// All of stderr.
    pub stderr: Vec<u8>,
    /// Its files.
    pub scratch: Scratch,
}

impl Session {
    /// `vmaudit WORDS`.
    pub fn vmaudit<S: AsRef<OsStr>>(words: &[S]) -> Self {
        Self::program(vmaudit()).words(words)
    }

    /// `vmaudit run --all-rows -o SCRATCH/report.json OPTIONS -- workload WORDS`: every process has its row,
    /// as tests compare them one by one.
    pub fn run(options: &[&str], words: &[&str]) -> Self {
        Self::run_as_usual(&[&["--all-rows"], options].concat(), words)
    }

    /// The same as users do it: in a crowd not every process has a row.
    pub fn run_as_usual(options: &[&str], words: &[&str]) -> Self {
        Self::run_command(options).then_workload(words)
    }

    /// The same up to the words of a command.
    pub fn run_command(options: &[&str]) -> Self {
        let session = Self::vmaudit(&["run", "-o"]);
        let report = session.scratch.path("report.json");
        let mut session = session.words(&[report]).words(&[Self::RECORD]);
        session.recording = Some(session.words.len() - 1);
        session.words(options).words(&["--"])
    }

    /// `vmaudit watch -o SCRATCH/report.json OPTIONS`, with a recording as in [`Session::run`].
    pub fn watch<S: AsRef<OsStr>>(options: &[S]) -> Self {
        let session = Self::vmaudit(&["watch", "--all-rows", "-o"]);
        let report = session.scratch.path("report.json");
        let mut session = session.words(&[report]).words(&[Self::RECORD]);
        session.recording = Some(session.words.len() - 1);
        session.words(options)
    }

    const RECORD: &str = "--record=";

    /// Without a recording: one is refused to whoever has rights that its caller lacks, and takes a descriptor and room.
    pub fn unrecorded(mut self) -> Self {
        if let Some(at) = self.recording.take() {
            self.words.remove(at);
        }
        self
    }

    /// The workload alone, not traced.
    pub fn workload(words: &[&str]) -> Self {
        Self::program(workload()).words(words)
    }

    /// Another program.
    pub fn other(program: PathBuf) -> Self {
        Self::program(program)
    }

    fn program(program: PathBuf) -> Self {
        Self {
            scratch: Scratch::new(),
            program,
            words: Vec::new(),
            stdin: Vec::new(),
            uid: None,
            environment: Vec::new(),
            caps: Vec::new(),
            recording: None,
        }
    }

    /// More words.
    pub fn words<S: AsRef<OsStr>>(mut self, words: &[S]) -> Self {
        self.words.extend(words.iter().map(|w| w.as_ref().to_owned()));
        self
    }

    /// The workload and its words.
    pub fn then_workload(self, words: &[&str]) -> Self {
        self.words(&[workload()]).words(words)
    }

    /// Path of a file of this session.
    pub fn file(&self, name: &str) -> PathBuf {
        self.scratch.path(name)
    }

    /// What comes on stdin.
    pub fn stdin(mut self, bytes: &[u8]) -> Self {
        self.stdin = bytes.to_vec();
        self
    }

    /// A variable of the environment.
    pub fn env(mut self, name: &'static str, value: &str) -> Self {
        self.environment.push((name, value.to_owned()));
        self
    }

    /// As if the kernel refused these eBPF programs; see VMAUDIT_WITHOUT in vmaudit-user/src/source/hooks.rs.
    pub fn without(self, programs: &[&str]) -> Self {
        self.env("VMAUDIT_WITHOUT", &programs.join(","))
    }

    /// Everything as this user, without rights.
    pub fn as_user(self, uid: u32) -> Self {
        Self { uid: Some(uid), ..self.reachable() }
    }

    /// Everything as this user, with these capabilities (by number) and no others, as `setpriv --ambient-caps` gives
    /// them.
    pub fn as_user_with(self, uid: u32, caps: &[u32]) -> Self {
        Self { caps: caps.to_vec(), ..self.unrecorded().as_user(uid) }
    }

    /// With copies of the programs that every user can reach, wherever the originals are.
    pub fn reachable(mut self) -> Self {
        let copy = |from: PathBuf| {
            let to = self.scratch.path(&from.file_name().expect("a program has a name").to_string_lossy());
            std::fs::copy(&from, &to).expect("a program can be copied");
            to.into_os_string()
        };
        let (original, copied) = (workload().into_os_string(), copy(workload()));
        let program = copy(std::mem::take(&mut self.program));
        for word in self.words.iter_mut().filter(|w| **w == original) {
            word.clone_from(&copied);
        }
        Self { program: program.into(), ..self }
    }

    /// The command with its three files.
    pub fn command(&self) -> Command {
        std::fs::write(self.scratch.path("stdin"), &self.stdin).expect("stdin can be written");
        let create = |name| File::create(self.scratch.path(name)).expect("an output file can be made");
        let mut command = Command::new(&self.program);
        let mut words = self.words.clone();
        if let Some(word) = self.recording.and_then(|at| words.get_mut(at)) {
            word.push(self.scratch.path("session.vma"));
        }
        command.args(&words).stdout(create("stdout")).stderr(create("stderr"));
        command.stdin(File::open(self.scratch.path("stdin")).expect("stdin can be opened"));
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        // SAFETY: system calls only.
        unsafe { command.pre_exec(as_from_a_terminal) };
        match self.uid {
            Some(uid) if self.caps.is_empty() => {
                // The child takes it from here; it has no rights by the time a closure of ours runs.
                raise_memlock_where_charged().expect("root may raise RLIMIT_MEMLOCK");
                command.uid(uid).gid(uid);
            }
            Some(uid) => {
                let caps = self.caps.clone();
                // SAFETY: system calls only, on memory made before the fork.
                unsafe { command.pre_exec(move || become_user(uid, &caps)) };
            }
            None => {}
        }
        command
    }

    /// Starts it.
    pub fn start(self) -> Running {
        let mut command = self.command();
        self.start_as(&mut command)
    }

    /// Starts it with stdin from a pipe.
    pub fn start_with_pipe(self) -> Running {
        let mut command = self.command();
        command.stdin(Stdio::piped());
        self.start_as(&mut command)
    }

    /// Starts a command made by [`Session::command`] and changed since.
    pub fn start_as(self, command: &mut Command) -> Running {
        // A program copied a moment ago can still be open for writing in a process that another test is starting.
        let child = wait_for("the program to be free", || match command.spawn() {
            Err(e) if e.raw_os_error() == Some(libc::ETXTBSY) => None,
            answer => Some(answer),
        });
        let child = child.unwrap_or_else(|e| panic!("{} cannot be started: {e}", self.program.display()));
        Running { child: Guard(child), scratch: self.scratch }
    }

    /// Starts it and waits for its end.
    pub fn go(self) -> Done {
        self.start().wait()
    }
}

/// A session whose workload stands still (`attach`) until samples have it as it stands. How long a look takes is the
/// machine's affair, and nobody tells when it was made: so it stands longer each time, up to the backstop.
pub fn until_sampled(mut start: impl FnMut() -> Running) -> Done {
    let mut stands = Duration::from_millis(300);
    loop {
        let mut running = start();
        running.wait_for_stdout("standing");
        std::thread::sleep(stands);
        let done = running.wait().succeeded();
        let (own, report) = (done.own().remove(0), done.report());
        if report.processes.iter().any(|row| row.pid == own.pid && row.map_count.last == own.last) {
            return done;
        }
        stands *= 4;
        assert!(stands < BACKSTOP, "it was never seen as it stood: {:?} {own:?}", report.processes);
    }
}

/// The words for several command lines of the workload, to be run one after the other in one session.
pub fn each<'a>(lines: &[&'a str]) -> Vec<&'a str> {
    let mut words = vec!["each"];
    for (n, line) in lines.iter().enumerate() {
        words.extend((n > 0).then_some("--"));
        words.extend(line.split(' '));
    }
    words
}

/// In a child before its exec: nothing of whoever started the tests (nohup, `&` in a script, a shell with files open)
/// reaches the program. Rust's own descriptors are closed on exec anyway.
fn as_from_a_terminal() -> std::io::Result<()> {
    for signal in 1..=64 {
        // SAFETY: no handler of ours.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    for fd in 3..1024 {
        // SAFETY: sets a flag; a descriptor that is not there is an answer.
        unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
    Ok(())
}

/// What a caller has to do before he becomes a user without CAP_SYS_RESOURCE, on kernels that ask for it.
pub fn raise_memlock_where_charged() -> std::io::Result<()> {
    let limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: `limit` lives through the call.
    if crate::charges_memlock() && unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    Ok(())
}

/// Another user, with only these capabilities in the permitted, effective, inheritable and ambient set.
pub fn become_user(uid: u32, caps: &[u32]) -> std::io::Result<()> {
    raise_memlock_where_charged()?;
    let all = caps.iter().fold(0u64, |all, cap| all | 1 << cap);
    let (low, high) = (all as u32, (all >> 32) as u32);
    // Version 3, this process; effective, permitted, inheritable of the low word, then of the high word.
    let header = [0x2008_0522_u32, 0];
    let data = [low, low, low, high, high, high];
    let none: *const libc::gid_t = std::ptr::null();
    // SAFETY: all pointers are to live arrays of the sizes that the calls expect.
    let answers = unsafe {
        [
            libc::c_long::from(libc::prctl(libc::PR_SET_KEEPCAPS, 1, 0, 0, 0)),
            libc::c_long::from(libc::setgroups(0, none)),
            libc::c_long::from(libc::setresgid(uid, uid, uid)),
            libc::c_long::from(libc::setresuid(uid, uid, uid)),
            libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr()),
        ]
    };
    let raise =
        // SAFETY: takes numbers only.
        |cap: &u32| unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE, *cap, 0, 0) } == 0;
    if answers == [0; 5] && caps.iter().all(raise) { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

impl Running {
    /// Process id of the program under test.
    pub fn pid(&self) -> u32 {
        self.child.0.id()
    }

    /// Writes to stdin, which must be a pipe; false when nobody reads any more.
    pub fn write(&mut self, bytes: &[u8]) -> bool {
        let stdin = self.child.0.stdin.as_mut().expect("stdin is a pipe");
        stdin.write_all(bytes).is_ok()
    }

    /// Has it ended?
    pub fn ended(&mut self) -> bool {
        self.child.0.try_wait().expect("wait").is_some()
    }

    /// What is on stdout by now.
    pub fn stdout_so_far(&self) -> Vec<u8> {
        std::fs::read(self.scratch.path("stdout")).expect("the stdout file is readable")
    }

    /// Path of a file of this session.
    pub fn file(&self, name: &str) -> PathBuf {
        self.scratch.path(name)
    }

    /// Waits until stdout contains `text`.
    pub fn wait_for_stdout(&mut self, text: &str) {
        self.wait_for_text("stdout", text);
    }

    /// Waits until stderr contains `text`.
    pub fn wait_for_stderr(&mut self, text: &str) {
        self.wait_for_text("stderr", text);
    }

    fn wait_for_text(&mut self, file: &str, text: &str) {
        wait_for(&format!("{text:?} on {file}"), || {
            let said = std::fs::read(self.scratch.path(file)).expect("an output file is readable");
            let found = String::from_utf8_lossy(&said).contains(text);
            if !found && let Some(status) = self.child.0.try_wait().expect("wait") {
                let stderr = std::fs::read(self.scratch.path("stderr")).unwrap_or_default();
                panic!("ended with {status} before {text:?} came: {}", String::from_utf8_lossy(&stderr));
            }
            found.then_some(())
        });
    }

    /// Waits for its end; at the backstop it is killed and the test fails.
    pub fn wait(mut self) -> Done {
        drop(self.child.0.stdin.take());
        let status = wait_for("the program's end", || self.child.0.try_wait().expect("wait"));
        self.done(status)
    }

    /// The same, with the most memory that it had resident, bytes.
    pub fn wait_measured(mut self) -> (Done, u64) {
        drop(self.child.0.stdin.take());
        let pid = self.pid() as i32;
        let (status, usage) = wait_for("the program's end", || {
            // SAFETY: all bytes zero is a valid rusage.
            let (mut status, mut usage) = (0, unsafe { std::mem::zeroed::<libc::rusage>() });
            // SAFETY: both outlive the call, and the child is ours.
            let answer = unsafe { libc::wait4(pid, &raw mut status, libc::WNOHANG, &raw mut usage) };
            assert!(answer >= 0, "wait4: {}", std::io::Error::last_os_error());
            (answer == pid).then_some((status, usage))
        });
        let kib = u64::try_from(usage.ru_maxrss).expect("a size");
        (self.done(ExitStatus::from_raw(status)), kib << 10)
    }

    fn done(self, status: ExitStatus) -> Done {
        let read = |name| std::fs::read(self.scratch.path(name)).expect("an output file is readable");
        let (stdout, stderr) = (read("stdout"), read("stderr"));
        Done { status, stdout, stderr, scratch: self.scratch }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Ok(None) = self.0.try_wait() {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

impl Done {
    /// It ended with status 0, or the test ends with what it said.
    #[track_caller]
    pub fn succeeded(self) -> Self {
        self.ended_with(0)
    }

    /// It ended with `code`.
    #[track_caller]
    pub fn ended_with(self, code: i32) -> Self {
        assert_eq!(self.status.code(), Some(code), "{} {}", self.status, self.said());
        self
    }

    /// It died of `signal`.
    #[track_caller]
    pub fn died_of(self, signal: i32) -> Self {
        assert_eq!(self.status.signal(), Some(signal), "{} {}", self.status, self.said());
        self
    }

    /// Both outputs, for messages.
    pub fn said(&self) -> String {
        let (out, err) = (String::from_utf8_lossy(&self.stdout), String::from_utf8_lossy(&self.stderr));
        let last: String = out.chars().skip(out.chars().count().saturating_sub(2000)).collect();
        format!("stdout (end): {last}\nstderr: {err}")
    }

    /// stderr as text.
    pub fn stderr_text(&self) -> String {
        String::from_utf8(self.stderr.clone()).unwrap_or_else(|e| panic!("stderr is not UTF-8: {e}"))
    }

    /// A file of this session.
    pub fn read(&self, name: &str) -> String {
        let path = self.scratch.path(name);
        std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{name}: {e}\n{}", self.said()))
    }

    /// The JSON report. A recording that was made of the session must give the same bytes again.
    pub fn report(&self) -> Report {
        let text = self.read("report.json");
        if self.scratch.path("session.vma").exists() {
            let again = Command::new(vmaudit())
                .arg("report")
                .arg(self.scratch.path("session.vma"))
                .args(["--format", "json"])
                .output()
                .expect("vmaudit can be started");
            let same = String::from_utf8_lossy(&again.stdout) == text;
            let said = String::from_utf8_lossy(&again.stderr);
            assert!(
                same && again.status.success(),
                "the recording gives another report: {said}{}",
                self.said()
            );
        }
        let report: Report =
            serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e} in the report {text}"));
        assert_eq!((report.schema.as_str(), report.version), ("vmaudit.report", 2));
        report
    }

    /// What the workload's processes said.
    pub fn own(&self) -> Vec<Own> {
        let own = own::parse(&self.stdout);
        assert!(!own.is_empty(), "the workload said nothing. {}", self.said());
        own
    }

    /// The only process's line and its row, in a session with one process.
    pub fn only(&self) -> (Own, Process) {
        let (own, report) = (self.own(), self.report());
        assert_eq!(own.len(), 1, "one line from the workload: {own:?}");
        assert_eq!(report.processes.len(), 1, "one row: {:?}", report.processes);
        assert_eq!(report.processes[0].pid, own[0].pid);
        (own[0].clone(), report.processes[0].clone())
    }
}
