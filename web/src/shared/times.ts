/** Moments and durations for people. */
import type { Zone } from "../app/theme";

const pad = (value: number) => String(value).padStart(2, "0");

/** `01-31 12:00:05` in the zone, the year where it is another one than now; empty for what is no time. */
export function shownMoment(text: string, zone: Zone, nowMs = Date.now()): string {
  const at = new Date(text);
  if (Number.isNaN(at.getTime())) return "";
  const [year, month, day, h, m, s] =
    zone === "UTC"
      ? [
          at.getUTCFullYear(),
          at.getUTCMonth(),
          at.getUTCDate(),
          at.getUTCHours(),
          at.getUTCMinutes(),
          at.getUTCSeconds(),
        ]
      : [at.getFullYear(), at.getMonth(), at.getDate(), at.getHours(), at.getMinutes(), at.getSeconds()];
  const date = `${pad(month + 1)}-${pad(day)}`;
  const isThisYear = year === new Date(nowMs).getFullYear();
  return `${isThisYear ? date : `${year}-${date}`} ${pad(h)}:${pad(m)}:${pad(s)}`;
}

/** `340 ms`, `12 s`, `3 min 5 s`, `2 h 5 min`, `3 d 4 h`. */
export function shownDuration(ms: number): string {
  if (ms < 1_000) return `${Math.round(ms)} ms`;
  const s = Math.floor(ms / 1_000);
  if (s < 60) return `${s} s`;
  if (s < 3_600) return s % 60 === 0 ? `${s / 60} min` : `${Math.floor(s / 60)} min ${s % 60} s`;
  const parts = s < 86_400 ? [s / 3_600, "h", (s % 3_600) / 60, "min"] : [s / 86_400, "d", (s % 86_400) / 3_600, "h"];
  const [large, name, small, smaller] = parts as [number, string, number, string];
  return Math.floor(small) === 0
    ? `${Math.floor(large)} ${name}`
    : `${Math.floor(large)} ${name} ${Math.floor(small)} ${smaller}`;
}

/** `12 s ago`, `in 2 h`, `just now`. */
export function shownDistance(text: string, nowMs: number): string {
  const ms = nowMs - Date.parse(text);
  if (Number.isNaN(ms)) return "";
  if (Math.abs(ms) < 1_000) return "just now";
  return ms > 0 ? `${shownDuration(ms)} ago` : `in ${shownDuration(-ms)}`;
}

/** `12,345`. */
export function shownCount(count: number): string {
  return count.toLocaleString("en");
}

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

/** `1.2 GiB`. */
export function shownBytes(bytes: number): string {
  let value = bytes;
  let unit = 0;
  while (value >= 1_024 && unit < UNITS.length - 1) {
    value /= 1_024;
    unit += 1;
  }
  return `${unit === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${UNITS[unit]}`;
}
