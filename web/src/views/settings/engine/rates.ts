/** Rates as people write and read them, as `logfeed keys create` takes them: 5000/s, 300/min, 5MB/s; none for no limit. Pure. */
import type { Key } from "../queries";

/** A second's worth; none: no limit; null: as the settings of ingest say. */
export type Rate = number | "none" | null;
export type Read<T> = { ok: true; value: T } | { ok: false; problem: string };

const RATE = /^(\d{1,12}(?:\.\d{1,6})?)\s*([kKMG]i?)?(B)?(?:\/(s|min|h))?$/;
const BURST = /^(\d{1,6}(?:\.\d{1,3})?)\s*(s|min)?$/;
const FACTORS: Record<string, number> = { "": 1, k: 1e3, M: 1e6, G: 1e9, ki: 2 ** 10, Mi: 2 ** 20, Gi: 2 ** 30 };
const PERIODS_S: Record<string, number> = { s: 1, min: 60, h: 3600 };
const BURST_S_MAX = 3_600;

/** Logs a second; nothing written: as the settings say. */
export const logsPerS = (text: string): Read<Rate> => rateOf(text, false, "5000/s or 300/min");

/** Bytes a second. */
export const bytesPerS = (text: string): Read<Rate> => rateOf(text, true, "5MB/s or 512KiB/s");

function rateOf(text: string, isBytes: boolean, example: string): Read<Rate> {
  const written = text.trim();
  if (written === "") return { ok: true, value: null };
  if (written === "none") return { ok: true, value: "none" };
  const [, number, prefix = "", unit, period = "s"] = RATE.exec(written) ?? [];
  const isOfKind = isBytes || unit === undefined;
  const factor = FACTORS[prefix.replace("K", "k")] as number;
  const value = number === undefined || !isOfKind ? 0 : (Number(number) * factor) / (PERIODS_S[period] as number);
  if (value > 0) return { ok: true, value };
  const what = isBytes ? "Bytes a second" : "Logs a second";
  return { ok: false, problem: `${what}: expected a rate such as ${example}, or none, got “${written.slice(0, 60)}”.` };
}

/** Seconds; nothing written: one. */
export function burstS(text: string): Read<number> {
  const written = text.trim();
  if (written === "") return { ok: true, value: 1 };
  const [, number, unit = "s"] = BURST.exec(written) ?? [];
  const value = Number(number ?? 0) * (PERIODS_S[unit] as number);
  if (value > 0 && value <= BURST_S_MAX) return { ok: true, value };
  return {
    ok: false,
    problem: `After a pause: expected seconds up to an hour, such as 10s, got “${written.slice(0, 60)}”.`,
  };
}

/** What a key may send, in words; empty: as the settings say. */
export function shownRates({ logs_per_s, bytes_per_s, burst_s }: Pick<Key, "logs_per_s" | "bytes_per_s" | "burst_s">) {
  const parts: string[] = [];
  if (logs_per_s !== null) {
    parts.push(logs_per_s === "none" ? "any number of logs" : `${shownNumber(logs_per_s)} logs/s`);
  }
  if (bytes_per_s !== null) parts.push(bytes_per_s === "none" ? "any number of bytes" : shownBytes(bytes_per_s));
  if (parts.length > 0 && burst_s !== 1) parts.push(`${shownNumber(burst_s)} s at once`);
  return parts.join(", ");
}

const shownNumber = (value: number): string => value.toLocaleString("en", { maximumFractionDigits: 3 });

function shownBytes(perS: number): string {
  const [factor, unit] = (
    [
      [1e9, "GB"],
      [1e6, "MB"],
      [1e3, "kB"],
    ] as const
  ).find(([least]) => perS >= least) ?? [1, "B"];
  return `${shownNumber(perS / factor)} ${unit}/s`;
}
