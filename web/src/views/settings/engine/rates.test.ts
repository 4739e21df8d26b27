import { expect, test } from "vitest";
import { burstS, bytesPerS, logsPerS, shownRates } from "./rates";

test("rates are read as the command line reads them", () => {
  const logs = ["5000/s", "5000", " 300/min ", "5k/s", "7200/h", "0.5/s", "none", ""].map(logsPerS);
  expect(logs.map((each) => each.ok && each.value)).toEqual([5000, 5000, 5, 5000, 2, 0.5, "none", null]);
  const bytes = ["5MB/s", "512KiB/s", "5 MB", "1GiB/h", "2000", "none", ""].map(bytesPerS);
  expect(bytes.map((each) => each.ok && each.value)).toEqual([5e6, 524_288, 5e6, 2 ** 30 / 3600, 2000, "none", null]);
  expect(["", "10s", "2min", "0.5", "3600"].map(burstS).map((each) => each.ok && each.value)).toEqual([
    1, 10, 120, 0.5, 3600,
  ]);
});

test("what is no rate is said to be none, with what was expected", () => {
  for (const text of ["fast", "0", "-1", "5MB/s", "5/day", "1e9", "none/s"]) {
    const found = logsPerS(text);
    expect(found, text).toMatchObject({ ok: false });
    expect(!found.ok && found.problem).toBe(
      `Logs a second: expected a rate such as 5000/s or 300/min, or none, got “${text}”.`,
    );
  }
  for (const text of ["5TB/s", "0B/s", "MB"]) expect(bytesPerS(text), text).toMatchObject({ ok: false });
  for (const text of ["0", "61min", "1h", "soon"]) expect(burstS(text), text).toMatchObject({ ok: false });
});

test("a key's rates are told in short, and nothing where the settings decide", () => {
  const shown = (logs_per_s: number | "none" | null, bytes_per_s: number | "none" | null, burst_s = 1) =>
    shownRates({ logs_per_s, bytes_per_s, burst_s });
  expect(shown(5000, 5e6, 10)).toBe("5,000 logs/s, 5 MB/s, 10 s at once");
  expect(shown(null, 1500)).toBe("1.5 kB/s");
  expect(shown("none", "none")).toBe("any number of logs, any number of bytes");
  expect(shown(null, null, 10)).toBe("");
});
