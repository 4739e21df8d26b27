import { describe, expect, test, vi } from "vitest";
import type { Row } from "../../../logs/row";
import {
  Highlighter,
  joined,
  type RegexAnswer,
  type RegexRequest,
  type RegexRunner,
  regexSpans,
  textSpans,
} from "./highlight";
import { marksOf } from "./query";

function row(id: string, message: string): Row {
  return {
    id,
    timestamp: "2026-01-01T00:00:00.000000Z",
    received_at: "",
    level: "INFO",
    severity: 9,
    service_name: "shop",
    message,
    correlation_id: null,
    metadata: {},
  };
}

/** Answers when it is told to, as a worker that is busy for so long does. */
class Runner implements RegexRunner {
  static made: Runner[] = [];
  asked: RegexRequest[] = [];
  isEnded = false;
  onmessage: ((event: MessageEvent<RegexAnswer>) => void) | null = null;
  onerror: ((event: ErrorEvent) => void) | null = null;
  constructor() {
    Runner.made.push(this);
  }
  postMessage(request: RegexRequest) {
    this.asked.push(request);
  }
  terminate() {
    this.isEnded = true;
  }
  answer() {
    const { regexes, ids, texts } = this.asked.at(-1) as RegexRequest;
    const compiled = regexes.map(({ source, flags }) => new RegExp(source, flags));
    const data: RegexAnswer = { ids, spans: texts.map((text) => regexSpans(text, compiled)) };
    this.onmessage?.({ data } as MessageEvent<RegexAnswer>);
  }
}

describe("texts", () => {
  test("are found in either case, all of them, joined where they touch", () => {
    expect(textSpans("Payment refused, payment", ["payment", "ment ref"])).toEqual([
      [0, 11],
      [17, 24],
    ]);
    expect(textSpans("nothing", ["x"])).toEqual([]);
  });

  test("keep their places beside letters whose lower case is longer", () => {
    const message = "İstanbul payment";
    const [span] = textSpans(message, ["payment"]);
    expect(message.slice(...(span as [number, number]))).toBe("payment");
  });
});

test("spans are joined in order", () => {
  expect(
    joined([
      [5, 7],
      [0, 2],
      [2, 4],
      [6, 9],
    ]),
  ).toEqual([
    [0, 4],
    [5, 9],
  ]);
});

describe("regular expressions", () => {
  test("run in the worker, once for each row, and add to what texts mark", async () => {
    Runner.made = [];
    const highlighter = new Highlighter(() => new Runner());
    highlighter.setMarks(marksOf('took /\\d+ ms/ -not "ok"'));
    const line = row("1", "took 15 ms, ok");
    const told = vi.fn();
    highlighter.subscribe(told);
    expect(highlighter.spansOf(line)).toEqual([
      [0, 4],
      [12, 14],
    ]);
    await Promise.resolve();
    Runner.made[0]?.answer();
    expect(told).toHaveBeenCalled();
    expect(highlighter.spansOf(line)).toEqual([
      [0, 4],
      [5, 10],
      [12, 14],
    ]);
    expect(Runner.made[0]?.asked).toHaveLength(1);
    highlighter.end();
    expect(Runner.made[0]?.isEnded).toBe(true);
  });

  test("that take too long are ended and not run again, until others are asked for", async () => {
    vi.useFakeTimers();
    Runner.made = [];
    const highlighter = new Highlighter(() => new Runner(), 300);
    highlighter.setMarks(marksOf("/(a+)+$/"));
    highlighter.spansOf(row("1", `${"a".repeat(40)}!`));
    await vi.advanceTimersByTimeAsync(299);
    expect(highlighter.isTooSlow).toBe(false);
    await vi.advanceTimersByTimeAsync(1);
    expect(highlighter.isTooSlow).toBe(true);
    expect(Runner.made[0]?.isEnded).toBe(true);
    highlighter.spansOf(row("2", "aaa"));
    await vi.advanceTimersByTimeAsync(10);
    expect(Runner.made).toHaveLength(1);
    highlighter.setMarks(marksOf("/b/"));
    highlighter.spansOf(row("2", "abc"));
    await vi.advanceTimersByTimeAsync(1);
    expect(Runner.made).toHaveLength(2);
    expect(highlighter.isTooSlow).toBe(false);
    highlighter.end();
    vi.useRealTimers();
  });

  test("that JavaScript does not know mark nothing, and break nothing", async () => {
    Runner.made = [];
    const highlighter = new Highlighter(() => new Runner());
    highlighter.setMarks(marksOf("/[/"));
    highlighter.spansOf(row("1", "x"));
    await Promise.resolve();
    Runner.made[0]?.onerror?.({} as ErrorEvent);
    expect(Runner.made[0]?.isEnded).toBe(true);
    expect(highlighter.spansOf(row("1", "x"))).toEqual([]);
  });
});
