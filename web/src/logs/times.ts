/**
 * What people type as a time, and how times are shown.
 *
 * A time is either relative (`-15m`: the server reads it anew at each question) or a moment. Words for days and bare clock
 * times mean the reader's zone; a moment is kept in UTC.
 */
import type { Zone } from "../app/theme";

/** `-15m` or `2026-01-31T12:00:00.000Z`: what the address keeps and the API takes. */
export type TimeText = string;

const RELATIVE = /^-?(\d{1,9})\s*(ms|s|m|h|d|w)(?:\s+ago)?$/;
const UNIT_WORDS: [RegExp, string][] = [
  [/^(seconds?|secs?)$/, "s"],
  [/^(minutes?|mins?)$/, "m"],
  [/^(hours?|hrs?)$/, "h"],
  [/^days?$/, "d"],
  [/^weeks?$/, "w"],
];
const UNIT_MS: Record<string, number> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000, w: 604_800_000 };
const DAYS = ["sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"];
const CLOCK = /^(\d{1,2}):(\d{2})(?::(\d{2})(?:[.,](\d{1,6}))?)?$/;
const DATE = /^(\d{4})-(\d{1,2})-(\d{1,2})$/;
const ISO = /^\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}(:\d{2}([.,]\d{1,9})?)?([Zz]|[+-]\d{2}:?\d{2})$/;

export type ParsedTime = { ok: true; text: TimeText } | { ok: false; problem: string };

/** Reads `-15m`, `2 hours ago`, `now`, `17:30`, `yesterday 17:30`, `monday 9:00`, `2026-01-31 12:00`, ISO 8601. */
export function parseTime(input: string, nowMs: number, zone: Zone): ParsedTime {
  const typed = input.trim().replace(/\s+/g, " ");
  const lower = typed.toLowerCase();
  if (lower === "now" || lower === "") return { ok: true, text: lower };
  const relative = parseRelative(lower);
  if (relative !== null) return { ok: true, text: relative };
  if (ISO.test(typed)) {
    const moment = new Date(typed.replace(" ", "T").replace(",", "."));
    if (!Number.isNaN(moment.getTime())) return { ok: true, text: moment.toISOString() };
  }
  const moment = parseDayAndClock(lower.replace("t", lower.match(/^\d{4}-\d{1,2}-\d{1,2}t/) ? " " : "t"), nowMs, zone);
  if (moment !== null) return { ok: true, text: new Date(moment).toISOString() };
  return { ok: false, problem: "not a time: write -15m, 17:30, yesterday 17:30 or 2026-01-31 12:00" };
}

function parseRelative(lower: string): TimeText | null {
  const words = lower.replace(/^last /, "").match(/^(\d{1,9}) ?([a-z]+)( ago)?$/);
  const named = words === null ? undefined : UNIT_WORDS.find(([word]) => word.test(words[2] as string));
  if (words !== null && named !== undefined) return `-${Number(words[1])}${named[1]}`;
  const found = RELATIVE.exec(lower.replace(/^last /, ""));
  return found === null ? null : `-${Number(found[1])}${found[2]}`;
}

/** Milliseconds since the epoch of `[day] [clock]`; null when it is none. */
function parseDayAndClock(lower: string, nowMs: number, zone: Zone): number | null {
  const parts = lower.split(" ");
  const clock = CLOCK.exec(parts.at(-1) ?? "");
  const dayText = (clock === null ? parts : parts.slice(0, -1)).join(" ").replace(/ at$/, "");
  const today = calendar(nowMs, zone);
  let day = today;
  if (dayText === "yesterday") day = { ...today, day: today.day - 1 };
  else if (DAYS.some((name) => dayText === name || (dayText.length === 3 && name.startsWith(dayText)))) {
    const wanted = DAYS.findIndex((name) => name.startsWith(dayText));
    const back = (weekday(today) - wanted + 7) % 7 || 7;
    day = { ...today, day: today.day - back };
  } else if (DATE.test(dayText)) {
    const [, year, month, date] = DATE.exec(dayText) as RegExpExecArray;
    day = { year: Number(year), month: Number(month) - 1, day: Number(date) };
    const check = new Date(Date.UTC(day.year, day.month, day.day));
    if (check.getUTCMonth() !== day.month || check.getUTCDate() !== day.day) return null;
  } else if (dayText !== "today" && dayText !== "") return null;
  if (clock === null && dayText === "") return null;
  const [hour, minute, second] = clock === null ? [0, 0, 0] : [clock[1], clock[2], clock[3] ?? 0].map(Number);
  if ((hour as number) > 23 || (minute as number) > 59 || (second as number) > 59) return null;
  const ms = clock?.[4] === undefined ? 0 : Math.trunc(Number(`0.${clock[4]}`) * 1000);
  const at = moment(day, hour as number, minute as number, second as number, ms, zone);
  // A bare clock time is the last one that was: 17:30 said at 9:00 is yesterday's.
  if (dayText === "" && at > nowMs) {
    return moment({ ...day, day: day.day - 1 }, hour as number, minute as number, second as number, ms, zone);
  }
  return at;
}

interface Day {
  year: number;
  month: number;
  day: number;
}

function calendar(ms: number, zone: Zone): Day {
  const at = new Date(ms);
  return zone === "UTC"
    ? { year: at.getUTCFullYear(), month: at.getUTCMonth(), day: at.getUTCDate() }
    : { year: at.getFullYear(), month: at.getMonth(), day: at.getDate() };
}

function weekday({ year, month, day }: Day): number {
  return new Date(Date.UTC(year, month, day)).getUTCDay();
}

function moment({ year, month, day }: Day, h: number, m: number, s: number, ms: number, zone: Zone): number {
  return zone === "UTC" ? Date.UTC(year, month, day, h, m, s, ms) : new Date(year, month, day, h, m, s, ms).getTime();
}

/** Milliseconds since the epoch of what the address holds; null for the open end. */
export function momentOf(text: TimeText, nowMs: number): number | null {
  if (text === "") return null;
  if (text === "now") return nowMs;
  const relative = /^-(\d+)(ms|s|m|h|d|w)$/.exec(text);
  if (relative !== null) return nowMs - Number(relative[1]) * (UNIT_MS[relative[2] as string] as number);
  const at = Date.parse(text);
  return Number.isNaN(at) ? null : at;
}

const pad = (value: number, digits = 2) => String(value).padStart(digits, "0");

/** `11-22 12:34:56.123`, in the zone; the year where it is not this one. */
export function shownTime(timestamp: string, zone: Zone, nowYear: number): string {
  return dayAndClock(timestamp, zone, nowYear).join(" ");
}

/** The same in two parts. */
export function dayAndClock(timestamp: string, zone: Zone, nowYear: number): [day: string, clock: string] {
  if (zone === "UTC") {
    const year = timestamp.slice(0, 4);
    const day = timestamp.slice(5, 10);
    return [Number(year) === nowYear ? day : `${year}-${day}`, timestamp.slice(11, 23)];
  }
  const at = new Date(timestamp);
  const day = `${pad(at.getMonth() + 1)}-${pad(at.getDate())}`;
  const clock = `${pad(at.getHours())}:${pad(at.getMinutes())}:${pad(at.getSeconds())}.${pad(at.getMilliseconds(), 3)}`;
  return [at.getFullYear() === nowYear ? day : `${at.getFullYear()}-${day}`, clock];
}

/** A place of a time axis whose steps are so long: date, clock, or clock with seconds. */
export function tickText(ms: number, stepS: number, zone: Zone): string {
  const [day, clock] = dayAndClock(`${new Date(ms).toISOString().slice(0, 23)}000Z`, zone, new Date(ms).getFullYear());
  if (stepS >= 86_400) return day;
  if (stepS < 60) return clock.slice(0, 8);
  return clock.startsWith("00:00") ? `${day} 00:00` : clock.slice(0, 5);
}

/** A moment of the address for people: `yesterday` is not guessed, the date is shown. */
export function shownMoment(text: TimeText, zone: Zone): string {
  if (text === "" || text === "now" || text.startsWith("-")) return text;
  const at = new Date(text);
  if (Number.isNaN(at.getTime())) return text;
  const day = calendar(at.getTime(), zone);
  const [h, m, s] =
    zone === "UTC"
      ? [at.getUTCHours(), at.getUTCMinutes(), at.getUTCSeconds()]
      : [at.getHours(), at.getMinutes(), at.getSeconds()];
  return `${day.year}-${pad(day.month + 1)}-${pad(day.day)} ${pad(h)}:${pad(m)}${s === 0 ? "" : `:${pad(s)}`}`;
}

/** `+1.234 s`, `+2 min 3 s`: time after a first moment, from timestamps with microseconds. */
export function shownOffset(timestamp: string, first: string): string {
  const us = (text: string) => Date.parse(`${text.slice(0, 19)}Z`) * 1000 + Number(text.slice(20, 26) || 0);
  const between = us(timestamp) - us(first);
  const ms = between / 1000;
  if (ms === 0) return "+0 ms";
  if (ms < 1_000) return `+${ms.toFixed(ms < 10 ? 2 : 0)} ms`;
  if (ms < 60_000) return `+${(ms / 1000).toFixed(3)} s`;
  const s = Math.floor(ms / 1000);
  if (s < 3600) return `+${Math.floor(s / 60)} min ${s % 60} s`;
  if (s < 86_400) return `+${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `+${Math.floor(s / 86_400)} d ${Math.floor((s % 86_400) / 3600)} h`;
}
