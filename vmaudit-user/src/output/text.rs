//! stub
use crate::report::Report; use std::io::{self,Write};
/// s
pub struct Style{/// c
pub colour:bool,/// w
pub width:usize,/// t
pub top:usize}
/// w
pub fn write(r:&Report,_:&Style,out:&mut dyn Write)->io::Result<()>{ writeln!(out,"{:?}",r.processes) }
