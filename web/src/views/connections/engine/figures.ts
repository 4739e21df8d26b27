/** Figures of metrics for people, and points for plots. Pure. */

export type Unit = "s" | "ms" | "bytes";
export type Point = [time: string, value: number, line: number];

/** `41.2 ms`, `12.2 kB`. */
export function shownValue(value: number, unit: Unit): string {
  if (unit === "bytes")
    return value < 1_000
      ? `${rounded(value)} B`
      : value < 1e6
        ? `${rounded(value / 1e3)} kB`
        : `${rounded(value / 1e6)} MB`;
  const ms = unit === "s" ? value * 1_000 : value;
  return ms < 1_000 ? `${rounded(ms)} ms` : `${rounded(ms / 1_000)} s`;
}

function rounded(value: number): string {
  return String(Number(value.toPrecision(3)));
}

/** Points in order of time, seconds since the epoch: plots need them so, and lines of a text need not be. */
export function plotted(points: readonly Point[]): {
  times: number[];
  values: number[];
  lines: number[];
  moments: string[];
} {
  const sorted = points.map(([time, value, line]) => ({ time, s: Date.parse(time) / 1_000, value, line }));
  sorted.sort((a, b) => a.s - b.s || a.line - b.line);
  return {
    times: sorted.map(({ s }) => s),
    values: sorted.map(({ value }) => value),
    lines: sorted.map(({ line }) => line),
    moments: sorted.map(({ time }) => time),
  };
}

/** The time that all plots of a connection share; null where none has a point. */
export function sharedRange(series: readonly (readonly Point[])[]): [number, number] | null {
  let first = Number.POSITIVE_INFINITY;
  let last = Number.NEGATIVE_INFINITY;
  for (const points of series) {
    for (const [time] of points) {
      const s = Date.parse(time) / 1_000;
      first = Math.min(first, s);
      last = Math.max(last, s);
    }
  }
  if (first > last) return null;
  return first === last ? [first - 1, last + 1] : [first, last];
}

/** What a rank correlation says. */
export function correlationWords(spearman: number | null): string {
  if (spearman === null) return "not enough to say";
  const strength = Math.abs(spearman);
  if (strength < 0.2) return "no relation";
  return `${strength < 0.5 ? "weak" : strength < 0.8 ? "clear" : "strong"}: ${spearman > 0 ? "more errors, more latency" : "more errors, less latency"}`;
}
