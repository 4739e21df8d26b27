/** From decisions of a trial to spans of time in which the rule would have fired, a line for each group. */

export interface Decision {
  state: "firing" | "resolved";
  at: string;
  started_at: string;
  labels: Record<string, string>;
  value: number;
}

export interface Span {
  startMs: number;
  /** null: it would fire still. */
  endMs: number | null;
  value: number;
}

export interface Line {
  /** `service=shop`; empty where the rule has no groups. */
  name: string;
  spans: Span[];
}

export function linesOf(decisions: readonly Decision[]): Line[] {
  const lines = new Map<string, Span[]>();
  for (const { state, at, started_at, labels, value } of decisions) {
    const name = Object.entries(labels)
      .map(([label, text]) => `${label}=${text}`)
      .join(" ");
    const spans = lines.get(name) ?? [];
    lines.set(name, spans);
    const last = spans.at(-1);
    if (state === "firing") spans.push({ startMs: Date.parse(at), endMs: null, value });
    else if (last !== undefined && last.endMs === null) last.endMs = Date.parse(at);
    else spans.push({ startMs: Date.parse(started_at), endMs: Date.parse(at), value });
  }
  return [...lines].map(([name, spans]) => ({ name, spans }));
}

/** Where a span lies between two times, in percent; at least half a percent wide, so that it is seen. */
export function placeOf(span: Span, startMs: number, endMs: number): { left: number; width: number } {
  const whole = Math.max(endMs - startMs, 1);
  const left = Math.min(Math.max(((span.startMs - startMs) / whole) * 100, 0), 99.5);
  const right = Math.min((((span.endMs ?? endMs) - startMs) / whole) * 100, 100);
  return { left, width: Math.max(right - left, 0.5) };
}
