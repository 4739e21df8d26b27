import { expect, test } from "vitest";
import { EventReader } from "./events";

const STREAM =
  ': hello\n\nevent: experiment\r\nid: 7\r\ndata: {"a":1}\r\n\r\ndata: one\ndata: two\n\nevent: nothing\n\ndata:x\n\n';

test("events are read whole, however the stream is cut", () => {
  for (let size = 1; size <= STREAM.length; size++) {
    const reader = new EventReader();
    const events = [];
    for (let at = 0; at < STREAM.length; at += size) events.push(...reader.add(STREAM.slice(at, at + size)));
    expect(events, `in pieces of ${size}`).toEqual([
      { kind: "experiment", id: "7", data: '{"a":1}' },
      { kind: "message", id: null, data: "one\ntwo" },
      { kind: "message", id: null, data: "x" },
    ]);
  }
});

test("an event without an end ends the stream, not the memory", () => {
  const reader = new EventReader();
  expect(() => {
    for (let piece = 0; piece < 3; piece++) reader.add(`data: ${"x".repeat(500_000)}`);
  }).toThrow(RangeError);
});
