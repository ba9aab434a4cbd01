//! stub
use crate::{report::{Cause,Limits}, source::Refused};
use std::collections::BTreeMap;
/// q
pub struct Question<'a>{pub call:u8,pub errno:u8,pub class:u32,pub count:u64,pub kept_bytes:u64,pub example:Option<&'a Refused>,pub limits:&'a Limits,pub kernel:&'a KernelRules}
/// r
pub struct KernelRules;
impl KernelRules{ /// x
pub fn for_release(_:&str)->Self{Self}}
/// v
pub struct Verdict{pub cause:Cause,pub certain:bool,pub ordinary:bool,pub evidence:BTreeMap<String,u64>,pub sentence:String,pub cure:Option<String>}
/// w
pub fn why(q:&Question<'_>)->Verdict{ Verdict{cause: if q.class&15>=7 {Cause::MaxMapCount} else {Cause::Unknown},certain:false,ordinary:false,evidence:BTreeMap::new(),sentence:format!("class {:#x}",q.class),cure:None} }
