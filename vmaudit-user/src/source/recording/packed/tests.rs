use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::*;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Variant {
    Unit,
    Newtype(u32),
    Pair(i64, String),
    Struct { a: u8, b: Option<u8> },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Everything {
    numbers: Vec<u64>,
    signed: Vec<i64>,
    floats: Vec<f64>,
    text: String,
    none: Option<u32>,
    some: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    absent: Option<Box<Everything>>,
    map: BTreeMap<String, Vec<Variant>>,
    yes: bool,
    letter: char,
    unit: (),
    pair: (u8, String),
}

fn everything(n: u64) -> Everything {
    let variants = vec![
        Variant::Unit,
        Variant::Newtype(7),
        Variant::Pair(-3, "x".into()),
        Variant::Struct { a: 1, b: None },
    ];
    Everything {
        numbers: vec![0, 127, 128, FAR - 1, FAR, FAR + n, u64::MAX, 1 << 40],
        signed: vec![0, -1, i64::MIN, i64::MAX, -128],
        floats: vec![0.0, -1.5, f64::MAX, 0.1],
        text: format!("größe {}", n % 100),
        none: None,
        some: Some(n as u32),
        absent: n.is_multiple_of(3).then(|| Box::new(everything(n + 1))),
        map: (0..n % 40).map(|key| (key.to_string(), variants.clone())).collect(),
        yes: n.is_multiple_of(2),
        letter: 'ß',
        unit: (),
        pair: (3, String::new()),
    }
}

fn packed(all: &[impl Serialize]) -> Vec<u8> {
    let mut packer = Packer::default();
    for value in all {
        assert!(packer.push(value, usize::MAX).unwrap());
    }
    let frame = packer.take();
    assert!(packer.is_empty());
    frame
}

fn unpacked<'f, T: Deserialize<'f>>(frame: &'f [u8]) -> Option<Vec<T>> {
    let mut all = Vec::new();
    values(frame, |value, _| all.push(value)).map(|()| all)
}

#[test]
fn what_is_packed_is_unpacked() {
    let all: Vec<Everything> = (0..200).map(everything).collect();
    assert_eq!(unpacked(&packed(&all)), Some(all));
    assert_eq!(unpacked::<Everything>(&packed(&[0_u8; 0])), Some(vec![]));
}

#[test]
fn a_frame_needs_nothing_of_the_one_before() {
    let mut packer = Packer::default();
    for n in 0..3 {
        assert!(packer.push(&everything(n), usize::MAX).unwrap());
        assert_eq!(unpacked(&packer.take()), Some(vec![everything(n)]));
    }
}

#[test]
fn fields_of_another_version_are_passed_over_or_have_their_defaults() {
    #[derive(Serialize)]
    struct New {
        new: Everything,
        a: u32,
        list: Vec<Variant>,
    }
    #[derive(Debug, PartialEq, Deserialize)]
    struct Old {
        a: u32,
        #[serde(default)]
        gone: u32,
    }
    let new = |a| New { new: everything(3), a, list: vec![Variant::Newtype(4); 40] };
    let frame = packed(&[new(1), new(1 << 30)]);
    assert_eq!(unpacked(&frame), Some(vec![Old { a: 1, gone: 0 }, Old { a: 1 << 30, gone: 0 }]));
}

#[test]
fn what_is_too_long_leaves_nothing_behind() {
    let mut packer = Packer::default();
    assert!(packer.push(&everything(1), usize::MAX).unwrap());
    assert!(!packer.push(&vec![1_u64 << 40; 1000], 500).unwrap());
    let text = "x".repeat(MOST_TEXT / 1000);
    assert!(!packer.push(&vec![text.as_str(); 1000], usize::MAX).unwrap(), "long by what it refers to");
    assert!(packer.push(&everything(2), usize::MAX).unwrap());
    assert_eq!(unpacked(&packer.take()), Some(vec![everything(1), everything(2)]));
}

/// As above, by what it brings to the tables.
#[test]
fn what_is_too_long_leaves_no_texts_behind() {
    let mut packer = Packer::default();
    assert!(packer.push(&everything(1), usize::MAX).unwrap());
    let length = packer.len();
    for n in 0..100 {
        let texts: Vec<String> = (0..10).map(|k| format!("{n} {k} {}", "x".repeat(MOST_TEXT / 10))).collect();
        let long = Variant::Pair(0, texts.concat());
        assert!(!packer.push(&long, MOST_TEXT / 2).unwrap() && !packer.push(&texts, MOST_TEXT / 2).unwrap());
        assert_eq!(packer.len(), length);
    }
    assert!(packer.push(&Variant::Struct { a: 1, b: None }, 100).unwrap(), "its shape is told anew");
    assert!(packer.push(&everything(2), usize::MAX).unwrap());
    let frame = packer.take();
    assert!(frame.len() < MOST_TEXT);
    let mut from = Vec::new();
    values(&frame, |value: serde::de::IgnoredAny, _| from.push(value)).unwrap();
    assert_eq!(from.len(), 3);
}

/// A frame is full long before a reader would take it for a bomb.
#[test]
fn a_text_that_many_values_hold_fills_a_frame() {
    let mut packer = Packer::default();
    let text = "x".repeat(MOST_TEXT / 4);
    let mut pushed = 0;
    while !packer.is_full() {
        assert!(packer.push(&text, usize::MAX).unwrap());
        pushed += 1;
    }
    assert!(pushed <= MOST_TOLD / text.len(), "{pushed}");
    assert_eq!(unpacked::<String>(&packer.take()).map(|all| all.len()), Some(pushed));
    assert!(!packer.is_full());
}

#[test]
fn no_bytes_make_it_panic_or_take_much() {
    let frame = packed(&[everything(3), everything(9)]);
    for at in 0..frame.len() {
        assert!(unpacked::<Everything>(&frame[..at]).is_none_or(|all| all.len() < 2));
        for bit in 0..8 {
            let mut flipped = frame.clone();
            flipped[at] ^= 1 << bit;
            let _ = unpacked::<Everything>(&flipped);
            let _ = unpacked::<serde::de::IgnoredAny>(&flipped);
        }
    }
    let deep = [&[0, 0][..], &[tag::LISTS + 1; 100_000], &[0]].concat();
    assert!(unpacked::<serde::de::IgnoredAny>(&deep).is_none());
    assert!(unpacked::<serde_json::Value>(&deep).is_none());
    // One long text, referred to again and again.
    let long = 1 << 19;
    let mut bomb = vec![1];
    super::super::numbers::unsigned(&mut bomb, long);
    bomb.extend(std::iter::repeat_n(b'x', long as usize));
    bomb.extend([0, tag::LIST]);
    super::super::numbers::unsigned(&mut bomb, 100_000);
    bomb.extend([tag::TEXTS; 100_000]);
    assert!(unpacked::<Vec<String>>(&bomb).is_none());
    // The same in many small values.
    let list = bomb.len() - 100_000 - 4;
    assert_eq!(bomb.drain(list..list + 4).next(), Some(tag::LIST));
    let mut bytes = 0;
    assert!(values(&bomb, |text: String, _| bytes += text.len()).is_none());
    assert!(bytes <= MOST_TOLD && bytes > MOST_TOLD / 2, "{bytes}");
    for wrong in [
        &[0xff; 10][..],
        &[0, 0, tag::LIST, 0xff, 0xff, 0x7f],
        &[0, 0, 0xae],
        &[1, 1, 0xff, 0],
        &[0, 1, 1, 0],
    ] {
        assert!(unpacked::<serde::de::IgnoredAny>(wrong).is_none(), "{wrong:?}");
    }
}

/// Recordings are read for ever: another byte here is another version of the format.
#[test]
fn the_bytes_are_frozen() {
    let frame = packed(&[Variant::Struct { a: 1, b: None }, Variant::Pair(-3, "x".into())]);
    assert_eq!(
        frame,
        b"\x05\x06Struct\x01a\x01b\x04Pair\x01x\x01\x02\x01\x02\x8b\x00\x90\x01\x80\x8b\x03\xf2\x84\x02\xb4"
    );
}
