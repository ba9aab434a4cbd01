//! A shell with job control and exactly one job.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use crate::memory::{die, errno, leave, write_all};

/// Runs `program` in a process group of its own in the foreground of the terminal on stdin. When it stops, says
/// "stopped", takes the terminal back, gives it again and continues the job. Ends with the job's status, or with 128 +
/// its signal.
pub fn run(program: &str, arguments: &[&str]) -> ! {
    // SAFETY: these calls take no pointers. The shell must not be stopped itself when it hands the terminal over.
    unsafe { libc::signal(libc::SIGTTOU, libc::SIG_IGN) };
    let mut command = Command::new(program);
    command.args(arguments).process_group(0);
    // SAFETY: signal() is allowed between fork and exec.
    unsafe {
        command.pre_exec(|| {
            libc::tcsetpgrp(0, libc::getpid());
            libc::signal(libc::SIGTTOU, libc::SIG_DFL);
            Ok(())
        });
    }
    let job = match command.spawn() {
        Ok(child) => child.id() as i32,
        Err(e) => die(99, format_args!("{program} cannot be started: {e}")),
    };
    loop {
        let mut status = 0;
        // SAFETY: `status` is valid for writing.
        if unsafe { libc::waitpid(job, &raw mut status, libc::WUNTRACED) } < 0 {
            die(99, format_args!("waitpid failed with errno {}", errno()));
        }
        if libc::WIFSTOPPED(status) {
            // SAFETY: these calls take no pointers.
            unsafe { libc::tcsetpgrp(0, libc::getpid()) };
            write_all(1, b"stopped\n");
            // SAFETY: as above.
            unsafe {
                libc::tcsetpgrp(0, job);
                libc::kill(-job, libc::SIGCONT);
            }
            write_all(1, b"continued\n");
        } else if libc::WIFEXITED(status) {
            leave(libc::WEXITSTATUS(status));
        } else {
            leave(128 + libc::WTERMSIG(status));
        }
    }
}
