/**
 * Marks what was searched for in the messages that are in sight.
 *
 * Texts are found here, in linear time. Regular expressions run in a worker of their own, because no JavaScript engine bounds
 * their time: one that takes longer than LIMIT_MS for a screenful is ended with its worker, said to be too slow, and not run
 * again until the question changes. Spans are kept by row; nothing is looked at twice.
 */

import type { Row } from "../../../logs/row";
import type { Marks } from "./query";

/** First character, and the one behind the last. */
export type Span = readonly [number, number];

export const LIMIT_MS = 300;
const KEPT_MAX = 30_000;
const SPANS_MAX = 200;

/** What runs expressions over texts; a Worker, or a test's. */
export interface RegexRunner {
  postMessage(message: RegexRequest): void;
  terminate(): void;
  onmessage: ((event: MessageEvent<RegexAnswer>) => void) | null;
  onerror: ((event: ErrorEvent) => void) | null;
}

export interface RegexRequest {
  regexes: Marks["regexes"];
  ids: string[];
  texts: string[];
}

export interface RegexAnswer {
  ids: string[];
  spans: Span[][];
}

export class Highlighter {
  private marks: Marks = { texts: [], regexes: [] };
  private readonly kept = new Map<string, Span[]>();
  private readonly waiting = new Map<string, string>();
  private runner: RegexRunner | null = null;
  private timer: ReturnType<typeof setTimeout> | null = null;
  private slow = false;
  private version = 0;
  private readonly listeners = new Set<() => void>();
  private readonly makeRunner: () => RegexRunner;
  private readonly limitMs: number;

  constructor(makeRunner: () => RegexRunner, limitMs: number = LIMIT_MS) {
    this.makeRunner = makeRunner;
    this.limitMs = limitMs;
  }

  readonly subscribe = (listener: () => void): (() => void) => {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  };

  /** Changes when spans are there that were not. */
  readonly current = (): number => this.version;

  /** A regular expression took too long and marks nothing. */
  get isTooSlow(): boolean {
    return this.slow;
  }

  get isEmpty(): boolean {
    return this.marks.texts.length + this.marks.regexes.length === 0;
  }

  setMarks(marks: Marks): void {
    if (JSON.stringify(marks) === JSON.stringify(this.marks)) return;
    this.marks = marks;
    this.slow = false;
    this.kept.clear();
    this.end();
    this.tell();
  }

  /** What is to be marked of a row, as far as it is known; asks for the rest, and tells who subscribed. */
  spansOf(row: Row): Span[] {
    if (this.isEmpty) return [];
    const kept = this.kept.get(row.id);
    if (kept !== undefined) return kept;
    const spans = textSpans(row.message, this.marks.texts);
    this.keep(row.id, spans);
    if (this.marks.regexes.length > 0 && !this.slow) {
      if (this.waiting.size === 0) queueMicrotask(() => this.ask());
      this.waiting.set(row.id, row.message);
    }
    return spans;
  }

  /** Free the worker. */
  end(): void {
    this.waiting.clear();
    if (this.timer !== null) clearTimeout(this.timer);
    this.timer = null;
    this.runner?.terminate();
    this.runner = null;
  }

  private ask(): void {
    if (this.timer !== null || this.waiting.size === 0) return;
    this.runner ??= this.start();
    const ids = [...this.waiting.keys()];
    const texts = [...this.waiting.values()];
    this.waiting.clear();
    this.timer = setTimeout(() => {
      this.end();
      this.slow = true;
      this.tell();
    }, this.limitMs);
    this.runner.postMessage({ regexes: this.marks.regexes, ids, texts });
  }

  private start(): RegexRunner {
    const runner = this.makeRunner();
    runner.onmessage = ({ data }) => {
      if (this.timer !== null) clearTimeout(this.timer);
      this.timer = null;
      data.ids.forEach((id, index) => {
        this.keep(id, joined([...(this.kept.get(id) ?? []), ...(data.spans[index] ?? [])]));
      });
      this.tell();
      this.ask();
    };
    // An expression that JavaScript does not know marks nothing; the server says whether it is one.
    runner.onerror = () => this.end();
    return runner;
  }

  private keep(id: string, spans: Span[]): void {
    if (this.kept.size >= KEPT_MAX) this.kept.clear();
    this.kept.set(id, spans);
  }

  private tell(): void {
    this.version += 1;
    for (const listener of this.listeners) listener();
  }
}

/** Where the texts, which are in lower case, are in a message, whatever its letters' case. */
export function textSpans(message: string, texts: readonly string[]): Span[] {
  if (texts.length === 0) return [];
  // Some letters have a longer lower case; then places would shift, and such a message is matched as it is.
  const lower = message.toLowerCase();
  const searched = lower.length === message.length ? lower : message;
  const spans: Span[] = [];
  for (const text of texts) {
    let at = searched.indexOf(text);
    while (at >= 0 && spans.length < SPANS_MAX) {
      spans.push([at, at + text.length]);
      at = searched.indexOf(text, at + text.length);
    }
  }
  return joined(spans);
}

/** All matches of all expressions in a text. May take any time: only for the worker. */
export function regexSpans(text: string, regexes: readonly RegExp[]): Span[] {
  const spans: Span[] = [];
  for (const regex of regexes) {
    for (const match of text.matchAll(regex)) {
      if (spans.length >= SPANS_MAX) break;
      if (match[0] !== "") spans.push([match.index, match.index + match[0].length]);
    }
  }
  return joined(spans);
}

/** In order, none touching another. */
export function joined(spans: Span[]): Span[] {
  const sorted = [...spans].sort((a, b) => a[0] - b[0]);
  const result: [number, number][] = [];
  for (const [start, end] of sorted) {
    const last = result.at(-1);
    if (last !== undefined && start <= last[1]) last[1] = Math.max(last[1], end);
    else result.push([start, end]);
  }
  return result;
}
