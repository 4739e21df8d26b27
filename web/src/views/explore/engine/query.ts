/**
 * The query language (docs/query-language.md) as far as the page needs it: where the caret stands, what is to be marked, how
 * a value is written as a term. What a query means, and whether it is right, the server alone decides.
 */

export interface Token {
  /** With its sign and field name, as typed. */
  text: string;
  /** 0-based, of the first character and behind the last. */
  start: number;
  end: number;
  isNegated: boolean;
  /** Empty for words, phrases and regular expressions. */
  field: string;
  /** `:`, `>=`, …; empty without a field. */
  operator: string;
  value: string;
  kind: "word" | "phrase" | "regex" | "keyword" | "bracket";
  /** Of a regular expression: `i`, or nothing. */
  flags: string;
}

const FIELD = /^([A-Za-z_@](?:[A-Za-z0-9_@./-]*[A-Za-z0-9_@])?)(:(?!:|\/\/)(?:>=|<=|>|<)?|>=|<=|>|<)/;
const KEYWORD = /^(OR|AND|NOT)(?=[\s()"]|$)/;

/** Never fails: what is not closed goes to the end. */
export function tokens(query: string): Token[] {
  const found: Token[] = [];
  let at = 0;
  let isNegated = false;
  while (at < query.length) {
    if (/\s/.test(query[at] as string)) {
      at += 1;
      continue;
    }
    const rest = query.slice(at);
    const keyword = KEYWORD.exec(rest)?.[1];
    if (keyword !== undefined) {
      found.push(plain("keyword", keyword, at));
      isNegated = keyword === "NOT";
      at += keyword.length;
      continue;
    }
    if (rest[0] === "(" || rest[0] === ")") {
      found.push(plain("bracket", rest[0], at));
      at += 1;
      continue;
    }
    const sign = /^-(?=[\w("/@])/.test(rest) ? 1 : 0;
    const token = term(query, at, sign, isNegated);
    found.push(token);
    isNegated = false;
    at = token.end;
  }
  return found;
}

function plain(kind: "keyword" | "bracket", text: string, start: number): Token {
  return {
    text,
    start,
    end: start + text.length,
    isNegated: false,
    field: "",
    operator: "",
    value: "",
    kind,
    flags: "",
  };
}

function term(query: string, start: number, sign: number, isAfterNot: boolean): Token {
  const from = start + sign;
  const match = FIELD.exec(query.slice(from));
  const [field, operator] = match === null ? ["", ""] : [match[1] as string, match[2] as string];
  const valueAt = from + field.length + operator.length;
  const isNegated = (sign === 1) !== isAfterNot;
  const token = (kind: Token["kind"], end: number, value: string, flags = ""): Token => {
    return { text: query.slice(start, end), start, end, isNegated, field, operator, value, kind, flags };
  };
  const first = query[valueAt];
  if (first === "(" && sign === 1) return token("word", from, "");
  if (first === '"') {
    let end = valueAt + 1;
    let value = "";
    while (end < query.length && query[end] !== '"') {
      if (query[end] === "\\" && (query[end + 1] === '"' || query[end + 1] === "\\")) end += 1;
      value += query[end];
      end += 1;
    }
    return token("phrase", Math.min(end + 1, query.length), value);
  }
  if (first === "/" && (field === "" || field.toLowerCase() === "message")) {
    let end = valueAt + 1;
    while (end < query.length && query[end] !== "/") end += query[end] === "\\" ? 2 : 1;
    end = Math.min(end, query.length);
    const source = query.slice(valueAt + 1, end);
    const hasFlag = query[end + 1] === "i";
    return token("regex", Math.min(end + (hasFlag ? 2 : 1), query.length), source, hasFlag ? "i" : "");
  }
  let end = valueAt;
  let opened = 0;
  while (end < query.length && !/\s/.test(query[end] as string)) {
    opened += query[end] === "(" ? 1 : query[end] === ")" ? -1 : 0;
    if (opened < 0) break;
    end += 1;
  }
  return token("word", Math.max(end, from + (field === "" ? 1 : 0)), query.slice(valueAt, end));
}

/** What of a message is to be marked: texts in lower case, and regular expressions as JavaScript writes them. */
export interface Marks {
  texts: string[];
  regexes: { source: string; flags: string }[];
}

const MARKS_MAX = 20;

export function marksOf(query: string): Marks {
  const marks: Marks = { texts: [], regexes: [] };
  for (const { kind, field, isNegated, value, flags } of tokens(query)) {
    if (isNegated || value === "" || (field !== "" && field.toLowerCase() !== "message")) continue;
    if (marks.texts.length + marks.regexes.length >= MARKS_MAX) break;
    if (kind === "regex") marks.regexes.push(scriptRegex(value, flags));
    else if (kind === "phrase" || (kind === "word" && value !== "*")) marks.texts.push(value.toLowerCase());
  }
  return marks;
}

/** The language's `.` is any character, `^` and `$` are the whole message's ends, `(?i)` at the start is a flag. */
function scriptRegex(source: string, flags: string): { source: string; flags: string } {
  const isFolded = flags === "i" || source.startsWith("(?i)");
  return { source: source.replace(/^\(\?i\)/, ""), flags: isFolded ? "gsi" : "gs" };
}

const BARE = /^[A-Za-z0-9_@][A-Za-z0-9_@./:+-]*$/;
const FIELD_NAME = /^[A-Za-z_@](?:[A-Za-z0-9_@./-]*[A-Za-z0-9_@])?$/;
const OWN_FIELDS = [
  "level",
  "service",
  "service_name",
  "correlation",
  "correlation_id",
  "message",
  "pattern",
  "id",
  "timestamp",
];

export function quoted(value: string): string {
  return BARE.test(value) ? value : `"${value.replace(/\\(?=["\\]|$)/g, "\\\\").replace(/"/g, '\\"')}"`;
}

/** The term of a metadata field with a value; null where the language has none (null, arrays, objects, odd names). */
export function metadataTerm(path: readonly string[], value: unknown): string | null {
  const name = path.join(".");
  const isScalar = typeof value === "string" || typeof value === "number" || typeof value === "boolean";
  if (!isScalar || value === "" || !FIELD_NAME.test(name) || name.split(".").length > 8) return null;
  const shown = OWN_FIELDS.includes(name.toLowerCase()) ? `metadata.${name}` : name;
  return `${shown}:${quoted(String(value))}`;
}

/** The query with a term more, or, where its opposite is in it, without that. */
export function withTerm(query: string, term: string, isExcluded: boolean): string {
  const [wanted, opposite] = isExcluded ? [`-${term}`, term] : [term, `-${term}`];
  const parts = tokens(query);
  if (parts.some((each) => each.text === wanted)) return query;
  const found = parts.find((each) => each.text === opposite);
  if (found !== undefined) return `${query.slice(0, found.start)}${wanted}${query.slice(found.end)}`;
  // OR joins looser than what stands side by side.
  const isEither = parts.some((each) => each.kind === "keyword" && each.text === "OR");
  const before = query.trim();
  return before === "" ? wanted : isEither ? `(${before}) ${wanted}` : `${before} ${wanted}`;
}

/** The token that the caret stands in or right behind. */
export function tokenAt(query: string, caret: number): Token | undefined {
  return tokens(query).find(
    (each) => each.start < caret && caret <= each.end && each.kind !== "keyword" && each.kind !== "bracket",
  );
}
