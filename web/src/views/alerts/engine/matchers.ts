/** Matchers of silences as people write them: `rule=payment-errors`, one a line. */

export interface MatcherText {
  label: string;
  op: "=" | "!=" | "=~" | "!~";
  value: string;
}

const MATCHER = /^\s*([a-zA-Z_][a-zA-Z0-9_.]*)\s*(=~|!~|!=|=)\s*(.*?)\s*$/;

export type ParsedMatchers = { ok: true; matchers: MatcherText[] } | { ok: false; problem: string };

export function parseMatchers(text: string): ParsedMatchers {
  const matchers: MatcherText[] = [];
  for (const line of text.split("\n")) {
    if (line.trim() === "") continue;
    const found = MATCHER.exec(line);
    if (found === null)
      return {
        ok: false,
        problem: `expected label=value, label!=value, label=~pattern or label!~pattern, got ${line.trim()}`,
      };
    matchers.push({ label: found[1] as string, op: found[2] as MatcherText["op"], value: found[3] as string });
  }
  if (matchers.length === 0) return { ok: false, problem: "name what is to be silenced, such as rule=payment-errors" };
  return { ok: true, matchers };
}

export function matchersText(matchers: readonly MatcherText[]): string {
  return matchers.map(({ label, op, value }) => `${label}${op}${value}`).join("\n");
}

/** Those that silence one alert: its rule, and the fields that tell its group. */
export function matchersOf(rule: string, groupBy: readonly string[], labels: Record<string, string>): string {
  const fields = groupBy.filter((field) => labels[field] !== undefined && labels[field] !== "");
  return matchersText([
    { label: "rule", op: "=", value: rule },
    ...fields.map((field): MatcherText => ({ label: field, op: "=", value: labels[field] as string })),
  ]);
}
