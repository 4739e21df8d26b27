/**
 * Frames of a tail, gathered: parsed as they come, handed over at most every FLUSH_MS, and only when what was handed over
 * before was taken. What a busy page does not take waits, the oldest rows are dropped past WAITING_MAX and counted.
 */
import type { Row } from "./row";

export const FLUSH_MS = 250;
export const WAITING_MAX = 50_000;

export interface Batch {
  rows: Row[];
  /** Rows that were left out before these: by the server, or here. */
  skipped: number;
  /** Where to go on after these; null: no frame came yet. */
  token: string | null;
  gap: { reason: string; query: string } | null;
}

export interface Frame {
  logs?: Row[];
  skipped?: number;
  gap?: { reason: string; query: string };
  token?: string;
}

export class Gathering {
  private batch: Batch = { rows: [], skipped: 0, token: null, gap: null };
  private isTaken = true;
  private timer: ReturnType<typeof setTimeout> | null = null;
  private readonly hand: (batch: Batch) => void;

  constructor(hand: (batch: Batch) => void) {
    this.hand = hand;
  }

  /** A message of the tail, as text. */
  add(message: string): void {
    const frame = JSON.parse(message) as Frame;
    const { batch } = this;
    if (frame.logs !== undefined) batch.rows = batch.rows.concat(frame.logs);
    batch.skipped += frame.skipped ?? 0;
    batch.gap = frame.gap ?? batch.gap;
    batch.token = frame.token ?? batch.token;
    if (batch.rows.length > WAITING_MAX) {
      batch.skipped += batch.rows.length - WAITING_MAX;
      batch.rows = batch.rows.slice(-WAITING_MAX);
    }
    this.plan();
  }

  /** The page has taken the last batch. */
  taken(): void {
    this.isTaken = true;
    this.plan();
  }

  private plan(): void {
    const { rows, skipped, token, gap } = this.batch;
    const isEmpty = rows.length === 0 && skipped === 0 && token === null && gap === null;
    if (isEmpty || !this.isTaken || this.timer !== null) return;
    this.timer = setTimeout(() => {
      this.timer = null;
      if (!this.isTaken) return;
      const { batch } = this;
      this.isTaken = false;
      this.batch = { rows: [], skipped: 0, token: null, gap: null };
      this.hand(batch);
    }, FLUSH_MS);
  }
}
