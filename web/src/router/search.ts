/**
 * Search parameters with types: a view says once what its address may hold, and reads and writes nothing else of it.
 *
 * What an address holds is anybody's text. A value that cannot be is read as the default, and a default is left out of the
 * address, so that the plain address of a view is its plain state.
 */

export interface Param<T> {
  /** Of all values of the name in the address, in order; none: the default. */
  parse(values: string[]): T;
  /** The values to write; equal to `format(parse([]))`: nothing is written. */
  format(value: T): string[];
}

// biome-ignore lint/suspicious/noExplicitAny: each parameter has a type of its own
export type Spec = Record<string, Param<any>>;
export type Values<S extends Spec> = { [K in keyof S]: S[K] extends Param<infer T> ? T : never };

export function text(fallback = "", charsMax = 4_000): Param<string> {
  return {
    parse: ([value]) => (value === undefined || value.length > charsMax ? fallback : value),
    format: (value) => [value],
  };
}

export function choice<const T extends string>(options: readonly T[], fallback: T): Param<T> {
  return {
    parse: ([value]) => options.find((option) => option === value) ?? fallback,
    format: (value) => [value],
  };
}

export function flag(): Param<boolean> {
  return { parse: ([value]) => value === "1", format: (value) => (value ? ["1"] : []) };
}

/** Any number of values, at most 200; of `options` where they are given. */
export function list<T extends string>(options?: readonly T[]): Param<T[]> {
  const isOption = (value: string): value is T => options === undefined || options.includes(value as T);
  return {
    parse: (values) => [...new Set(values)].filter(isOption).slice(0, 200),
    format: (value) => value,
  };
}

export function parseSearch<S extends Spec>(spec: S, search: string): Values<S> {
  const given = new URLSearchParams(search);
  const entries = Object.entries(spec).map(([name, param]) => [name, param.parse(given.getAll(name))]);
  return Object.fromEntries(entries) as Values<S>;
}

/** `?…`, or nothing where everything is as by default. Names that the spec does not have are dropped. */
export function formatSearch<S extends Spec>(spec: S, values: Partial<Values<S>>): string {
  const written = new URLSearchParams();
  for (const [name, param] of Object.entries(spec)) {
    if (!(name in values)) continue;
    const texts = param.format(values[name]);
    const plain = param.format(param.parse([]));
    if (texts.length === plain.length && texts.every((each, index) => each === plain[index])) continue;
    for (const each of texts) written.append(name, each);
  }
  const shown = written.toString();
  return shown === "" ? "" : `?${shown}`;
}
