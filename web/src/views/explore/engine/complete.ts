/** What the search box offers for the term at the caret: fields, then their values. Pure. */

import type { Row } from "../../../logs/row";
import { LEVELS } from "../../../shared/Level";
import { quoted, tokenAt } from "./query";

export interface Sources {
  services: readonly string[];
  /** Metadata fields by name, with values and how often they were seen. */
  fields: ReadonlyMap<string, ReadonlyMap<string, number>>;
}

export interface Option {
  /** Takes the place of start..end. */
  text: string;
  hint: string;
  /** A value is to follow. */
  goesOn: boolean;
}

export interface Completions {
  start: number;
  end: number;
  options: Option[];
}

const OPTIONS_MAX = 10;
const SAMPLE_ROWS = 1_000;
const FIELDS_MAX = 200;
const VALUES_MAX = 100;
const OWN: [string, string][] = [
  ["level", "level:error, level>=warn"],
  ["service", "a name, or pay* for all that begin so"],
  ["correlation", "one request's story"],
  ["message", 'text, as without "message:"'],
  ["pattern", "all lines of a kind"],
];

export function completions(query: string, caret: number, sources: Sources): Completions {
  const token = tokenAt(query, caret);
  if (token === undefined) {
    const isBetween = caret === 0 || /[\s(]/.test(query[caret - 1] ?? " ");
    return { start: caret, end: caret, options: isBetween ? fieldOptions("", "", sources) : [] };
  }
  const sign = token.text.startsWith("-") ? "-" : "";
  const { start, end } = token;
  if (token.field === "") {
    if (token.kind !== "word") return { start, end, options: [] };
    return { start, end, options: fieldOptions(token.value, sign, sources) };
  }
  const typed = token.value.toLowerCase();
  const head = `${sign}${token.field}${token.operator}`;
  const options = valuesOf(token.field, sources)
    .filter(({ value }) => value.toLowerCase().includes(typed) && value !== token.value)
    .slice(0, OPTIONS_MAX)
    .map(({ value, hint }) => ({ text: head + quoted(value), hint, goesOn: false }));
  return { start, end, options };
}

function fieldOptions(typed: string, sign: string, sources: Sources): Option[] {
  const wanted = typed.toLowerCase();
  const own = OWN.filter(([name]) => name.startsWith(wanted)).map(([name, hint]) => ({ name, hint }));
  const known = [...sources.fields.keys()]
    .filter((name) => name.toLowerCase().includes(wanted))
    .map((name) => ({ name, hint: "metadata" }));
  return [...own, ...known]
    .slice(0, OPTIONS_MAX)
    .map(({ name, hint }) => ({ text: `${sign}${name}:`, hint, goesOn: true }));
}

function valuesOf(field: string, sources: Sources): { value: string; hint: string }[] {
  switch (field.toLowerCase()) {
    case "level":
      return LEVELS.map((name) => ({ value: name.toLowerCase(), hint: "" }));
    case "service":
    case "service_name":
      return sources.services.map((value) => ({ value, hint: "" }));
  }
  const values = sources.fields.get(field.replace(/^metadata\./, "")) ?? new Map<string, number>();
  return [...values].sort((a, b) => b[1] - a[1]).map(([value, count]) => ({ value, hint: `${count} of the newest` }));
}

/** What a row has in a metadata field, as text; empty: nothing. */
export function fieldText(row: Row, name: string): string {
  if (Object.hasOwn(row.metadata, name)) return shownValue(row.metadata[name]);
  let value: unknown = row.metadata;
  for (const key of name.split(".")) {
    if (typeof value !== "object" || value === null || !Object.hasOwn(value, key)) return "";
    value = (value as Record<string, unknown>)[key];
  }
  return shownValue(value);
}

function shownValue(value: unknown): string {
  return typeof value === "string" ? value : (JSON.stringify(value) ?? "");
}

/** Fields and values of some rows; objects go deeper with dots, as the language has it. */
export function fieldsOf(rows: readonly Row[]): Map<string, Map<string, number>> {
  const fields = new Map<string, Map<string, number>>();
  const note = (name: string, value: unknown, depth: number) => {
    if (typeof value === "object" && value !== null && !Array.isArray(value)) {
      if (depth < 8) for (const [key, inner] of Object.entries(value)) note(`${name}.${key}`, inner, depth + 1);
      return;
    }
    if (value === null || Array.isArray(value) || (fields.size >= FIELDS_MAX && !fields.has(name))) return;
    const values = fields.get(name) ?? new Map<string, number>();
    fields.set(name, values);
    const text = String(value);
    if (text.length <= 80 && (values.has(text) || values.size < VALUES_MAX))
      values.set(text, (values.get(text) ?? 0) + 1);
  };
  for (const row of rows.slice(0, SAMPLE_ROWS)) {
    for (const [key, value] of Object.entries(row.metadata)) note(key, value, 1);
  }
  return fields;
}
