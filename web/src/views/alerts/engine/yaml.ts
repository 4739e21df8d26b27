/** A rule as YAML, as it stands in rules.yaml; in a chunk of its own, with the parser. */
import { parseDocument, stringify } from "yaml";
import type { RuleDocument } from "./rule";

/** Of what a person pastes. */
const CHARS_MAX = 100_000;

export type ParsedRule = { ok: true; document: RuleDocument } | { ok: false; problem: string };

export function toYaml(document: RuleDocument): string {
  return stringify(document, { lineWidth: 110 });
}

/** One rule: a mapping, or the only one of `rules:`. Its fields are the server's to check. */
export function fromYaml(text: string): ParsedRule {
  if (text.length > CHARS_MAX) return { ok: false, problem: `expected at most ${CHARS_MAX} characters` };
  const read = parseDocument(text, { uniqueKeys: true });
  const mistake = read.errors[0];
  if (mistake !== undefined) return { ok: false, problem: (mistake.message.split("\n")[0] ?? "").replace(/:$/, "") };
  let value: unknown;
  try {
    value = read.toJS({ maxAliasCount: 20 });
  } catch (error) {
    return { ok: false, problem: error instanceof Error ? error.message : "it cannot be read" };
  }
  if (isMapping(value) && Array.isArray(value.rules)) {
    if (value.rules.length !== 1) return { ok: false, problem: `expected one rule, got ${value.rules.length}` };
    value = value.rules[0];
  } else if (Array.isArray(value) && value.length === 1) value = value[0];
  if (!isMapping(value)) return { ok: false, problem: "expected a rule: name, query, condition and so on" };
  return { ok: true, document: value as RuleDocument };
}

function isMapping(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
