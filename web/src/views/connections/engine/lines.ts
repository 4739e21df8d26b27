/**
 * The lines of one side of a connection, oldest first, outside of React: pages as the reader goes on, from the first line or from
 * that of a moment (`begin`). At most ROWS_MAX are held; past that the reader begins anew where they are.
 */
import { getJson } from "../../../api/client";
import { type ApiProblem, asProblem } from "../../../api/problem";

export const ROWS_MAX = 20_000;
/** What is asked for first: more than a pane shows, so that its first line waits for little. */
const FIRST_LIMIT = 100;
const PAGE_LIMIT = 500;

export interface Line {
  id: string;
  timestamp: string;
  level: string;
  message: string;
  metadata: Record<string, unknown>;
}

export interface Page {
  logs: Line[];
  next_cursor: string | null;
}

export interface View {
  phase: "loading" | "ready" | "failed";
  problem: ApiProblem | null;
  rows: readonly Line[];
  isLoading: boolean;
  /** It began with a line further down. */
  isFromMiddle: boolean;
  /** More lines follow than are held. */
  isFull: boolean;
  /** Changes when the lines are others. */
  generation: number;
}

/** A page behind a cursor; from: a moment, with null from the first line. */
export type Ask = (from: string | null, cursor: string | null, signal: AbortSignal) => Promise<Page>;

export function askOf(connectionId: string, side: "server" | "client"): Ask {
  return (from, cursor, signal) => {
    const asked = new URLSearchParams({ limit: String(cursor === null ? FIRST_LIMIT : PAGE_LIMIT) });
    if (cursor !== null) asked.set("cursor", cursor);
    if (from === null) {
      asked.set("side", side);
      return getJson<Page>(`/api/v1/connections/${encodeURIComponent(connectionId)}/logs`, asked, signal);
    }
    // Its own route begins with the first line; the same lines are logs with these fields.
    asked.set("correlation_id", connectionId);
    asked.set("metadata.side", side);
    asked.set("start_time", from);
    asked.set("order", "asc");
    return getJson<Page>("/api/v1/logs", asked, signal);
  };
}

export function lineNumber(line: Line): number {
  return Number(line.metadata.line ?? 0);
}

export class Lines {
  private view: View = {
    phase: "loading",
    problem: null,
    rows: [],
    isLoading: false,
    isFromMiddle: false,
    isFull: false,
    generation: 0,
  };
  private cursor: string | null = null;
  private from: string | null = null;
  private abort = new AbortController();
  private readonly listeners = new Set<() => void>();
  private readonly ask: Ask;
  private readonly rowsMax: number;

  constructor(ask: Ask, rowsMax = ROWS_MAX) {
    this.ask = ask;
    this.rowsMax = rowsMax;
  }

  readonly subscribe = (listener: () => void): (() => void) => {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  };

  readonly current = (): View => this.view;

  /** from: the moment of the first line that is wanted; null: of all. Answers when its first page is there, or failed. */
  async begin(from: string | null): Promise<void> {
    this.end();
    this.from = from;
    this.cursor = null;
    this.change({ phase: "loading", problem: null, isLoading: true });
    await this.load([]);
  }

  /** The next page, if there is one and room for it. */
  async more(): Promise<void> {
    const { phase, isLoading, isFull, rows } = this.view;
    if (phase !== "ready" || isLoading || isFull || this.cursor === null) return;
    this.change({ isLoading: true });
    await this.load(rows);
  }

  /** Begin anew with the last line that is held. */
  async goOn(): Promise<void> {
    const last = this.view.rows.at(-1);
    if (last !== undefined) await this.begin(last.timestamp);
  }

  end(): void {
    this.abort.abort();
    this.abort = new AbortController();
  }

  private async load(before: readonly Line[]): Promise<void> {
    const { signal } = this.abort;
    try {
      let page = await this.ask(this.from, this.cursor, signal);
      // A search that came to its time has pages without lines: it goes on.
      while (page.logs.length === 0 && page.next_cursor !== null)
        page = await this.ask(this.from, page.next_cursor, signal);
      if (signal.aborted) return;
      this.cursor = page.next_cursor;
      const rows = before.concat(page.logs);
      this.change({
        phase: "ready",
        rows,
        isLoading: false,
        isFromMiddle: this.from !== null,
        isFull: rows.length >= this.rowsMax && page.next_cursor !== null,
        generation: this.view.generation + (before.length === 0 ? 1 : 0),
      });
    } catch (error) {
      if (!signal.aborted) this.change({ phase: "failed", problem: asProblem(error), isLoading: false });
    }
  }

  private change(patch: Partial<View>): void {
    this.view = { ...this.view, ...patch };
    for (const listener of this.listeners) listener();
  }
}
