/** A rule's document: what its form shows and changes, and how its condition reads. Durations stay as they were written. */

export type Condition = Record<string, Record<string, unknown>>;

/** As `schemas` call it: a document that only the server checks. */
export interface RuleDocument {
  name?: string;
  query?: string;
  window?: string | number;
  every?: string | number;
  for?: string | number;
  condition?: Condition;
  group_by?: string[];
  severity?: string;
  labels?: Record<string, string>;
  summary?: string;
  runbook?: string | null;
  channels?: string[];
  [more: string]: unknown;
}

export const SEVERITIES = ["info", "warning", "critical"] as const;

export interface ConditionKind {
  name: string;
  /** In a list of choices. */
  title: string;
  params: { name: string; label: string; kind: "number" | "text"; initial: string | number }[];
}

export const CONDITIONS: readonly ConditionKind[] = [
  {
    name: "count",
    title: "so many logs",
    params: [{ name: "at_least", label: "At least, logs", kind: "number", initial: 10 }],
  },
  {
    name: "rate",
    title: "so many logs a time",
    params: [
      { name: "at_least", label: "At least, logs", kind: "number", initial: 1 },
      { name: "per", label: "Per", kind: "text", initial: "1s" },
    ],
  },
  {
    name: "error_ratio",
    title: "a share of errors",
    params: [
      { name: "at_least", label: "At least (0.05: one in twenty)", kind: "number", initial: 0.05 },
      { name: "min_logs", label: "Of at least, logs", kind: "number", initial: 100 },
    ],
  },
  {
    name: "distinct",
    title: "different values of a field",
    params: [
      { name: "field", label: "Field", kind: "text", initial: "user.id" },
      { name: "at_least", label: "At least, values", kind: "number", initial: 20 },
    ],
  },
  {
    name: "silence",
    title: "no log at all",
    params: [{ name: "forget", label: "Forget a group after", kind: "text", initial: "1d" }],
  },
  {
    name: "new_pattern",
    title: "a pattern that is new",
    params: [{ name: "learn", label: "Learn what is usual for", kind: "text", initial: "1d" }],
  },
];

export function newRule(): RuleDocument {
  return { name: "", query: "level>=error", window: "5m", condition: { count: { at_least: 10 } }, severity: "warning" };
}

export function conditionOf(document: RuleDocument): [ConditionKind | undefined, Record<string, unknown>] {
  const [name, values] = Object.entries(document.condition ?? {})[0] ?? ["", {}];
  return [CONDITIONS.find((each) => each.name === name), values ?? {}];
}

/** A condition of another kind, with what it takes at first. */
export function conditionFor(name: string): Condition {
  const kind = CONDITIONS.find((each) => each.name === name);
  return { [name]: Object.fromEntries((kind?.params ?? []).map((param) => [param.name, param.initial])) };
}

/** The document with a field; an empty value takes the field out, so that its default holds. */
export function withField(document: RuleDocument, name: string, value: unknown): RuleDocument {
  const { [name]: _, ...rest } = document;
  const isEmpty = value === "" || value === null || value === undefined;
  const isBare = Array.isArray(value)
    ? value.length === 0
    : typeof value === "object" && Object.keys(value ?? {}).length === 0;
  if (isEmpty || isBare) return rest;
  // In its old place, so that the YAML does not jump.
  return name in document ? { ...document, [name]: value } : { ...rest, [name]: value };
}

/** `a, b c` as a list. */
export function words(text: string): string[] {
  return text.split(/[\s,]+/).filter((word) => word !== "");
}

/** `team=payments, area=eu` as labels; what has no `=` is a label without a value. */
export function labelsOf(text: string): Record<string, string> {
  const pairs = text.split(",").map((pair) => pair.trim());
  return Object.fromEntries(
    pairs
      .filter((pair) => pair !== "")
      .map((pair) => {
        const at = pair.indexOf("=");
        return at < 0 ? [pair, ""] : [pair.slice(0, at).trim(), pair.slice(at + 1).trim()];
      }),
  );
}

export function labelsText(labels: Record<string, string> | undefined): string {
  return Object.entries(labels ?? {})
    .map(([name, value]) => `${name}=${value}`)
    .join(", ");
}

/** `at least 10 logs in 5m, for 1m`: what the rule fires on. */
export function sentence(document: RuleDocument): string {
  const [kind, values] = conditionOf(document);
  const window = document.window ?? "5m";
  const hold = document.for === undefined || document.for === "0s" || document.for === 0 ? "" : `, for ${document.for}`;
  const by = (document.group_by ?? []).length > 0 ? `, by ${(document.group_by ?? []).join(", ")}` : "";
  const least = values.at_least;
  const said = {
    count: `at least ${least} logs in ${window}`,
    rate: `at least ${least} logs per ${values.per ?? "1s"}, over ${window}`,
    error_ratio: `at least ${Number(least) * 100}% errors of ${values.min_logs ?? 1} logs or more in ${window}`,
    distinct: `at least ${least} different values of ${values.field} in ${window}`,
    silence: `no log in ${window}`,
    new_pattern: `a pattern that is new, in ${window}`,
  }[kind?.name ?? ""];
  return said === undefined ? "a condition that this page does not know" : said + hold + by;
}

/** Explore, with the logs that an alert is about. labels: its own; `group_by` fields narrow the query. */
export function logsAddress(
  document: RuleDocument,
  labels: Record<string, string>,
  from: string,
  to: string | null,
): string {
  const narrowed = (document.group_by ?? [])
    .filter((field) => labels[field] !== undefined && labels[field] !== "(other)")
    .map((field) => `${fieldName(field)}:${quoted(labels[field] as string)}`);
  const query = document.query ?? "";
  const asked = new URLSearchParams();
  const whole = [/\bor\b/i.test(query) ? `(${query})` : query, ...narrowed].filter((part) => part !== "").join(" ");
  if (whole !== "") asked.set("q", whole);
  asked.set("from", from);
  if (to !== null) asked.set("to", to);
  return `/?${asked}`;
}

function fieldName(field: string): string {
  return { service: "service", level: "level", correlation_id: "correlation" }[field] ?? `metadata.${field}`;
}

function quoted(value: string): string {
  return /^[\w./-]+$/.test(value) ? value : `"${value.replace(/(["\\])/g, "\\$1")}"`;
}

const SECONDS: Record<string, number> = { s: 1, m: 60, h: 3_600, d: 86_400, w: 604_800 };

/** Seconds of `1h30m`, or of a number of them; 0 for what is neither. */
export function secondsOf(duration: string | number | undefined): number {
  if (typeof duration === "number") return duration;
  const parts = [...(duration ?? "").matchAll(/(\d+)([smhdw])/g)];
  return parts.reduce((sum, [, count, unit]) => sum + Number(count) * (SECONDS[unit as string] ?? 0), 0);
}
