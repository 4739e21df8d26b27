/** Sums of the ledger: by minute for a plot, by service and by reason for tables. Pure. */

export interface Sums {
  received: number;
  stored: Record<string, number>;
  filtered: Record<string, number>;
  rejected: Record<string, number>;
  duplicate: number;
  dead_lettered: Record<string, number>;
  balanced: boolean;
}

export interface LedgerRow extends Sums {
  minute: string;
  service_name: string;
}

export const OUTCOMES = ["stored", "filtered", "rejected", "duplicate", "dead_lettered"] as const;
export type Outcome = (typeof OUTCOMES)[number];
export const OUTCOME_NAMES: Record<Outcome, string> = {
  stored: "stored",
  filtered: "filtered",
  rejected: "rejected",
  duplicate: "duplicate",
  dead_lettered: "dead-lettered",
};

export function total(counts: Record<string, number>): number {
  return Object.values(counts).reduce((sum, count) => sum + count, 0);
}

export function countOf(sums: Sums, outcome: Outcome): number {
  return outcome === "duplicate" ? sums.duplicate : total(sums[outcome]);
}

export interface Minutes {
  /** Seconds since the epoch, each minute from the first to the last. */
  times: number[];
  counts: Record<Outcome, number[]>;
}

const MINUTE_S = 60;

/** Each minute of [start, end) seconds, those without a log too. */
export function byMinute(rows: readonly LedgerRow[], startS: number, endS: number): Minutes {
  const first = Math.floor(startS / MINUTE_S);
  const minutes = Math.max(Math.ceil(endS / MINUTE_S) - first, 1);
  const times = Array.from({ length: minutes }, (_, index) => (first + index) * MINUTE_S);
  const counts = Object.fromEntries(OUTCOMES.map((outcome) => [outcome, new Array<number>(minutes).fill(0)])) as Record<
    Outcome,
    number[]
  >;
  for (const row of rows) {
    const index = Math.floor(Date.parse(row.minute) / 1_000 / MINUTE_S) - first;
    if (index < 0 || index >= minutes) continue;
    for (const outcome of OUTCOMES) counts[outcome][index] = (counts[outcome][index] ?? 0) + countOf(row, outcome);
  }
  return { times, counts };
}

export interface ServiceSums {
  service: string;
  received: number;
  counts: Record<Outcome, number>;
  isBalanced: boolean;
}

/** Most logs first. */
export function byService(rows: readonly LedgerRow[]): ServiceSums[] {
  const sums = new Map<string, ServiceSums>();
  for (const row of rows) {
    let of = sums.get(row.service_name);
    if (of === undefined) {
      const counts = { stored: 0, filtered: 0, rejected: 0, duplicate: 0, dead_lettered: 0 };
      of = { service: row.service_name, received: 0, counts, isBalanced: true };
      sums.set(row.service_name, of);
    }
    of.received += row.received;
    for (const outcome of OUTCOMES) of.counts[outcome] += countOf(row, outcome);
  }
  // Minutes alone may not add up yet: a log is received in one transaction and stored in another.
  for (const of of sums.values()) of.isBalanced = of.received === total(of.counts);
  return [...sums.values()].sort((a, b) => b.received - a.received || a.service.localeCompare(b.service));
}

export interface Reason {
  outcome: Outcome;
  reason: string;
  count: number;
}

/** Why logs were not stored, most first. */
export function reasons(sums: Sums): Reason[] {
  const found: Reason[] = [];
  for (const outcome of ["filtered", "rejected", "dead_lettered"] as const) {
    for (const [reason, count] of Object.entries(sums[outcome])) found.push({ outcome, reason, count });
  }
  return found.sort((a, b) => b.count - a.count || a.reason.localeCompare(b.reason));
}

/** Tops of a stack: each series on those before it. */
export function stacked(series: readonly number[][]): number[][] {
  const tops: number[][] = [];
  for (const values of series) {
    const below = tops.at(-1);
    tops.push(values.map((value, index) => value + (below?.[index] ?? 0)));
  }
  return tops;
}
