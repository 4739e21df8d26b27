/**
 * One question to the logs and what came of it: pages in both directions, a tail above them. Outside of React.
 *
 * `ask` begins anew and drops what is under way. Pages come one at a time: `reach` says what is in sight, and what is missing
 * around that is fetched. The tail's rows are shown at once while the reader is at the top and does not pause; else counted.
 */
import { getJson } from "../api/client";
import { type ApiProblem, asProblem } from "../api/problem";
import type { Row } from "./row";
import { LIMITS, type Page, RowStore } from "./store";
import { Tail, type TailState } from "./tail";

export const FIRST_LIMIT = 200;
export const PAGE_LIMIT = 1_000;
/** Rows before the window's edge at which the next page is fetched. */
const AHEAD_ROWS = 400;
const TRIES = 4;
/** Pages without rows after which the reader is asked whether to search on. */
const EMPTY_PAGES_MAX = 8;
/** Rows above the one that the table begins around: more than half a screen of any. */
const ABOVE_LIMIT = 100;

interface LogPage extends Page {
  scanned_to: string | null;
  tail: string | null;
}

export interface View {
  /** What is asked, as a query string. */
  question: string;
  phase: "loading" | "ready" | "failed";
  problem: ApiProblem | null;
  isLoadingOlder: boolean;
  /** A page further down failed: the rows above it are still good. */
  olderProblem: ApiProblem | null;
  /** The search stopped here, without an end: the reader decides whether it goes on. */
  searchedTo: string | null;
  tail: TailState | null;
  skipped: number;
  gap: { reason: string } | null;
  /** Changes with each change of the rows. */
  version: number;
  /** Changes where all rows are others: the table begins again at its edge. */
  generation: number;
}

const BEGINNING: View = {
  question: "",
  phase: "loading",
  problem: null,
  isLoadingOlder: false,
  olderProblem: null,
  searchedTo: null,
  tail: null,
  skipped: 0,
  gap: null,
  version: 0,
  generation: 0,
};

export class Explorer {
  readonly store = new RowStore();
  private view: View = BEGINNING;
  private question = new URLSearchParams();
  private isLive = false;
  private tailToken: string | null = null;
  private abort = new AbortController();
  private tail: Tail | null = null;
  private isBusy = false;
  private isAtTop = true;
  private paused = false;
  private isFromOldest = false;
  private aroundId = "";
  private readonly listeners = new Set<() => void>();
  /** Moves the table's reader by so many rows. */
  onShift: (rows: number) => void = () => undefined;

  readonly subscribe = (listener: () => void): (() => void) => {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  };

  readonly current = (): View => this.view;

  /**
   * Begin with a question: parameters of `/api/v1/logs` without limit, order and cursor. What was shown stays until the first
   * page is there. isFromOldest: with the last rows of the table, not the first. aroundId: amid the neighbours of this log.
   */
  ask(question: URLSearchParams, isLive: boolean, { isFromOldest = false, aroundId = "" } = {}): void {
    this.end();
    this.question = question;
    this.isLive = isLive;
    this.isFromOldest = isFromOldest;
    this.aroundId = aroundId;
    this.tailToken = null;
    this.isAtTop = !isFromOldest && aroundId === "";
    const { version, generation } = this.view;
    this.change({ ...BEGINNING, question: question.toString(), version: version + 1, generation });
    void this.begin();
  }

  /** The same question again, from the newest or the oldest. */
  restart(isFromOldest = false): void {
    this.ask(this.question, this.isLive, { isFromOldest });
  }

  /** The table shows the oldest row, not the newest, at its beginning. */
  get beganAtOldest(): boolean {
    return this.isFromOldest;
  }

  /** The log that the table begins around, which may not be among its rows; undefined: at an edge. */
  get middle(): Row | undefined {
    return this.store.rows.find((row) => row.id === this.aroundId);
  }

  /** The next older log of these levels that matches the question, beyond all rows that are loaded; null: there is none. */
  async findOlder(levels: readonly string[]): Promise<Row | null> {
    const last = this.store.rows.at(-1);
    const asked = this.question.getAll("level");
    const wanted = levels.filter((level) => asked.length === 0 || asked.includes(level));
    if (last === undefined || wanted.length === 0) return null;
    const query = new URLSearchParams(this.question);
    query.delete("level");
    for (const level of wanted) query.append("level", level);
    query.set("around", last.id);
    query.set("limit", "1");
    const { signal } = this.abort;
    for (;;) {
      const page = await getJson<LogPage>("/api/v1/logs", query, signal);
      const row = page.logs[0];
      if (row !== undefined) return row;
      if (page.next_cursor === null) return null;
      query.delete("around");
      query.set("cursor", page.next_cursor);
    }
  }

  /** Show rows around one of those shown, in their places; none: no more. Answers by how many places the row moved. */
  surround(row: Row, around: readonly Row[]): number {
    const before = this.store.indexOf(row);
    this.store.surround(around);
    this.change({ version: this.view.version + 1 });
    return this.store.indexOf(row) - before;
  }

  /** Follow what comes, or stop following; the rows stay. */
  setLive(isLive: boolean): void {
    if (isLive === this.isLive) return;
    this.isLive = isLive;
    if (isLive && this.tailToken === null) this.restart();
    else if (isLive) this.follow(this.tailToken as string);
    else {
      this.tail?.end();
      this.tail = null;
      this.change({ tail: null });
    }
  }

  setPaused(isPaused: boolean): void {
    this.paused = isPaused;
    if (!isPaused && this.isAtTop) this.showFresh();
    else this.change({});
  }

  get isPaused(): boolean {
    return this.paused;
  }

  /** Whether the reader looks at the newest row. */
  setAtTop(isAtTop: boolean): void {
    if (isAtTop === this.isAtTop) return;
    this.isAtTop = isAtTop;
    if (isAtTop && !this.paused && this.store.isAtHead && this.store.freshCount > 0) this.showFresh();
  }

  /** Show what came; the table then goes to its top. */
  showFresh(): void {
    if (this.store.showHeld()) this.change({ version: this.view.version + 1 });
    else if (this.view.phase === "ready") this.restart();
  }

  /**
   * Places first..last are in sight: fetch what is missing there, or soon will be. Who pulled the scroll bar to the very top from
   * far below wants the newest, not all the pages in between.
   */
  reach(first: number, last: number): void {
    if (this.view.phase !== "ready" || this.isBusy) return;
    const { store } = this;
    if (first === 0 && store.base > LIMITS.rowsMax) this.restart();
    else if (first < store.base + AHEAD_ROWS && store.newer !== null) void this.load("newer", store.newer);
    else if (first < store.base) this.restart();
    else if (last > store.count - AHEAD_ROWS && this.view.olderProblem === null && this.view.searchedTo === null) {
      if (store.older.kind !== "end") void this.load("older");
    }
  }

  /** Go on after a problem, or after a search that came to its limit. */
  goOn(): void {
    if (!this.isBusy) void this.load("older");
  }

  /** Drop what is under way. The rows stay. */
  end(): void {
    this.abort.abort();
    this.abort = new AbortController();
    this.tail?.end();
    this.tail = null;
    this.isBusy = false;
  }

  private async begin(): Promise<void> {
    const { signal } = this.abort;
    try {
      const query = new URLSearchParams(this.question);
      if (this.aroundId !== "") query.set("around", this.aroundId);
      const page = await this.page(query, FIRST_LIMIT, signal);
      const above = this.aroundId === "" ? null : page.prev_cursor;
      const newer = above === null ? null : await this.page(this.going(above), ABOVE_LIMIT, signal);
      this.store.start(page);
      if (newer !== null) this.store.addNewer(newer);
      this.tailToken = page.tail;
      const { version, generation } = this.view;
      this.change({ phase: "ready", version: version + 1, generation: generation + 1 });
      if (this.isLive && page.tail !== null) this.follow(page.tail);
      if (page.logs.length === 0 && page.next_cursor !== null) await this.load("older");
    } catch (error) {
      if (!signal.aborted) this.change({ phase: "failed", problem: asProblem(error) });
    }
  }

  private async load(direction: "newer" | "older", cursor: string | null = null): Promise<void> {
    const { signal } = this.abort;
    this.isBusy = true;
    if (direction === "older") this.change({ isLoadingOlder: true, olderProblem: null, searchedTo: null });
    try {
      if (direction === "newer") await this.loadNewer(cursor as string, signal);
      else await this.loadOlder(signal);
    } catch (error) {
      if (!signal.aborted) this.change({ olderProblem: asProblem(error) });
    } finally {
      if (!signal.aborted) {
        this.isBusy = false;
        this.change({ isLoadingOlder: false, version: this.view.version + 1 });
      }
    }
  }

  /** The question at a cursor. */
  private going(cursor: string): URLSearchParams {
    const query = new URLSearchParams(this.question);
    if (this.aroundId !== "") query.set("around", this.aroundId);
    query.set("cursor", cursor);
    return query;
  }

  private async loadNewer(cursor: string, signal: AbortSignal): Promise<void> {
    const page = await this.page(this.going(cursor), PAGE_LIMIT, signal);
    const moved = this.store.addNewer(page);
    if (moved !== 0) this.onShift(moved);
  }

  private async loadOlder(signal: AbortSignal): Promise<void> {
    for (let empty = 0; ; empty++) {
      const { older } = this.store;
      if (older.kind === "end" || older.kind === "none") return;
      const query = older.kind === "cursor" ? this.going(older.cursor) : new URLSearchParams(this.question);
      if (older.kind === "before") query.set("end_time", microsecondAfter(older.row));
      const before = this.store.rows.length;
      const page = await this.page(query, PAGE_LIMIT, signal);
      this.store.addOlder(page);
      if (page.logs.length > 0 && (this.store.rows.length > before || this.store.base > 0)) return;
      if (page.next_cursor === null) return;
      if (empty + 1 >= EMPTY_PAGES_MAX) {
        this.change({ searchedTo: page.scanned_to });
        return;
      }
    }
  }

  private async page(query: URLSearchParams, limit: number, signal: AbortSignal): Promise<LogPage> {
    query.set("limit", String(limit));
    if (this.isFromOldest) query.set("order", "asc");
    for (let attempt = 1; ; attempt++) {
      try {
        const page = await getJson<LogPage>("/api/v1/logs", query, signal);
        return this.isFromOldest ? turned(page) : page;
      } catch (error) {
        const problem = asProblem(error);
        if (signal.aborted || !problem.isTransient || attempt >= TRIES) throw error;
        await pause((problem.retryAfterS ?? attempt) * 1000, signal);
      }
    }
  }

  private follow(token: string): void {
    const question = new URLSearchParams(this.question);
    this.tail?.end();
    this.tail = new Tail(question, token, {
      onBatch: ({ rows, skipped, gap, token: next }) => {
        this.tailToken = next ?? this.tailToken;
        const isFollowing = this.isAtTop && !this.paused;
        const arrived = this.store.arrive(rows, isFollowing);
        if (arrived === 0 && skipped === 0 && gap === null) return;
        this.change({
          version: this.view.version + 1,
          skipped: this.view.skipped + skipped,
          gap: gap ?? this.view.gap,
        });
      },
      onState: (tail) => {
        // A token that is no longer one: what came meanwhile is in pages.
        if (tail.kind === "ended" && tail.problem.status === 400) this.restart();
        else this.change({ tail });
      },
    });
  }

  private change(patch: Partial<View>): void {
    this.view = { ...this.view, ...patch };
    for (const listener of this.listeners) listener();
  }
}

/** A page of a walk from the oldest, as the table has it: newest first. */
function turned(page: LogPage): LogPage {
  // Its tail goes on behind the newest row, which this walk has yet to reach.
  return {
    ...page,
    logs: [...page.logs].reverse(),
    next_cursor: page.prev_cursor,
    prev_cursor: page.next_cursor,
    tail: null,
  };
}

/** `end_time` is exclusive, and rows of the same microsecond may be missing still. */
export function microsecondAfter(row: Row): string {
  const us = Number(row.timestamp.slice(20, 26)) + 1;
  if (us < 1_000_000) return `${row.timestamp.slice(0, 20)}${String(us).padStart(6, "0")}Z`;
  return new Date(Date.parse(`${row.timestamp.slice(0, 19)}Z`) + 1000).toISOString();
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}
