import type { ReactNode } from "react";

export type Tone = "good" | "bad" | "warn" | "busy" | "plain";

const MARKS: Record<Tone, string> = { good: "✓", bad: "●", warn: "▲", busy: "◔", plain: "○" };

/** A state in a word: with a mark of its own, never by colour alone. */
export function Badge({ tone = "plain", children }: { tone?: Tone; children: ReactNode }) {
  return (
    <span className="badge" data-tone={tone}>
      <span aria-hidden="true">{MARKS[tone]}</span> {children}
    </span>
  );
}
