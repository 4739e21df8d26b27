import type { ReactNode } from "react";
import type { Span } from "../engine/highlight";

/** A message with what was searched for marked. charsMax: of one that is cut to a line anyway. */
export function Message({
  text,
  spans,
  charsMax = Number.POSITIVE_INFINITY,
}: {
  text: string;
  spans: Span[];
  charsMax?: number;
}) {
  const shown = text.length > charsMax ? text.slice(0, charsMax) : text;
  if (spans.length === 0) return shown;
  const parts: ReactNode[] = [];
  let at = 0;
  for (const [start, end] of spans) {
    if (start >= shown.length) break;
    parts.push(shown.slice(at, start), <mark key={start}>{shown.slice(start, end)}</mark>);
    at = end;
  }
  parts.push(shown.slice(at));
  return parts;
}
