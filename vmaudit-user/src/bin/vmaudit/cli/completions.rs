//! `vmaudit completions`.

use clap_complete::Shell;

/// Shown below the options.
pub const EXAMPLES: &str = "Examples:\n  vmaudit completions bash\n  vmaudit completions zsh\n  vmaudit completions fish\n\n\
    Where shells look for them: bash /usr/share/bash-completion/completions/vmaudit, zsh a folder of $fpath as _vmaudit, fish\n\
    ~/.config/fish/completions/vmaudit.fish. Packages put them there.";

/// Options of `completions`.
#[derive(Clone, Debug, clap::Args)]
pub struct CompletionsArgs {
    /// For this shell; goes to standard output
    pub shell: Shell,
}
