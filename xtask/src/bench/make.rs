//! A project of small C files, for a build of many short processes.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::command::find;

const FILES: usize = 60;
/// Why there is none.
pub const MISSING: &str = "no make, or no cc";

/// Sources and a Makefile in a folder of their own.
pub struct Project(PathBuf);

impl Project {
    /// `None` where nothing can be built.
    pub fn new(folder: &Path) -> Result<Option<Self>> {
        if find("make").is_none() || find("cc").is_none() {
            return Ok(None);
        }
        let folder = folder.join("project");
        let write = |name: &str, text: &str| {
            let path = folder.join(name);
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
        };
        fs::create_dir(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let objects: Vec<String> = (0..FILES).map(|file| format!("part{file}.o")).collect();
        write("Makefile", &format!("all: {}\n%.o: %.c\n\tcc -O1 -c -o $@ $<\n", objects.join(" ")))?;
        for file in 0..FILES {
            write(&format!("part{file}.c"), &source(file))?;
        }
        Ok(Some(Self(folder)))
    }

    /// The command that builds all of it, whatever is built already.
    pub fn words(&self) -> Vec<OsString> {
        let words = ["make", "-B", "-s", "-j2", "-C"].map(OsString::from);
        words.into_iter().chain([self.0.clone().into()]).collect()
    }
}

/// Without what a make around us would tell it.
pub fn alone(command: &mut Command) -> &mut Command {
    ["MAKEFLAGS", "MAKELEVEL", "MFLAGS"].into_iter().fold(command, Command::env_remove)
}

fn source(file: usize) -> String {
    format!(
        "#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n\n\
         struct item{file} {{ char name[32]; long value; struct item{file} *next; }};\n\n\
         struct item{file} *put{file}(struct item{file} *list, const char *name, long value) {{\n    \
             struct item{file} *item = malloc(sizeof *item);\n    \
             if (!item)\n        return list;\n    \
             snprintf(item->name, sizeof item->name, \"%s\", name);\n    \
             item->value = value + {file};\n    \
             item->next = list;\n    \
             return item;\n}}\n\n\
         long sum{file}(const struct item{file} *list, const char *name) {{\n    \
             long sum = 0;\n    \
             for (; list; list = list->next)\n        \
                 if (!strcmp(list->name, name))\n            sum += list->value;\n    \
             return sum;\n}}\n"
    )
}
