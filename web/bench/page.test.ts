/**
 * The budgets of the page (docs/performance.md), in a real Chromium over a real Logfeed with a million rows. Times are written
 * down and fail nothing; what must be exact (ids, DOM, sums) is asserted.
 *
 *     make bench-web [ROWS=1000000] [RUNS=5] [LIVE_S=60]
 */
import type { Browser, Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, expect, inject, test } from "vitest";
import { ask, launch, login, open, PHONE, send } from "../e2e/browser";
import { until } from "../e2e/site";
import { Figures, largest, median, quantile } from "./figures";
import { generate, storedIds, storedLogs } from "./load";

const ROWS = Number(process.env.ROWS ?? 1_000_000);
const RUNS = Number(process.env.RUNS ?? 5);
const LIVE_S = Number(process.env.LIVE_S ?? 60);
const LIVE_RATE = 5_000;
const MARKERS = 100;
const CONNECTIONS = 10_000;
/** Of the largest, of both its sides together. */
const CONNECTION_LINES = 100_000;
/** A frame: 60,000 px a second, faster than anybody scrolls, and less than what is in the document. */
const STEP_PX = 1_000;
const MB = 1024 * 1024;
const figures = new Figures();
let browser: Browser;

beforeAll(async () => {
  browser = await launch();
  await generate({ requests: Math.ceil(ROWS / 1_000) });
  await until(async () => storedLogs() >= ROWS, "all rows are stored", 1_800_000);
});
const write = () => figures.write({ rows: ROWS, runs: RUNS, live_s: LIVE_S });
// What was measured is kept, whatever becomes of the rest.
afterEach(() => void write());
afterAll(async () => {
  await browser.close();
  console.log(write());
});

/** Notes when the first row was painted, and tasks that kept the page from answering. */
async function watched(page: Page): Promise<void> {
  await page.addInitScript(() => {
    const facts = { firstRowMs: 0, tasks: [] as number[], inputs: [] as number[] };
    Object.assign(window, { facts });
    new PerformanceObserver((list) => {
      for (const { duration } of list.getEntries()) facts.tasks.push(duration);
    }).observe({ type: "longtask", buffered: true });
    new PerformanceObserver((list) => {
      for (const { name, duration } of list.getEntries()) if (name === "keydown") facts.inputs.push(duration);
    }).observe({ type: "event", buffered: true, durationThreshold: 16 } as PerformanceObserverInit);
    const look = () => {
      if (document.querySelector(".log") === null) return requestAnimationFrame(look);
      // The frame after the one that has it: by then it was painted.
      return requestAnimationFrame(() => {
        facts.firstRowMs = performance.now();
      });
    };
    requestAnimationFrame(look);
  });
}

interface PageFacts {
  firstRowMs: number;
  tasks: number[];
  inputs: number[];
}
const factsOf = (page: Page) => page.evaluate(() => (window as unknown as { facts: PageFacts }).facts);

async function firstRowMs(page: Page, path: string): Promise<number> {
  await page.goto(path);
  return until(async () => (await factsOf(page)).firstRowMs, "the first row is there");
}

test("what is loaded, and when the first row is there", async () => {
  const { page, context } = await open(browser);
  await login(page, "/?from=all");
  await watched(page);
  const times: number[] = [];
  for (let run = 0; run < RUNS; run++) times.push(await firstRowMs(page, "/?from=all"));
  figures.add("first row after load, warm", "ms", 1_000, times);
  const fresh = await open(browser);
  await fresh.context.addCookies(await context.cookies());
  await fresh.page.goto("/?from=all");
  await fresh.page.locator(".log").first().waitFor();
  const loaded = await fresh.page.evaluate(() =>
    (performance.getEntriesByType("resource") as PerformanceResourceTiming[])
      .filter(({ name }) => name.endsWith(".js"))
      .map(({ name, encodedBodySize }) => ({ name, bytes: encodedBodySize })),
  );
  const first = loaded.filter(({ name }) => !/Histogram/.test(name));
  figures.add("first JavaScript, gzip", "KB", 150, [first.reduce((sum, { bytes }) => sum + bytes, 0) / 1024]);
  await fresh.context.close();
  await context.close();
});

test("scrolling through all rows", async () => {
  const before = storedIds();
  const { page, context } = await open(browser);
  await login(page, "/?from=all");
  await page.locator(".log").first().waitFor();
  const tools = await context.newCDPSession(page);
  await tools.send("Performance.enable");
  const heaps: number[] = [];
  const sample = async () => {
    const { metrics } = await tools.send("Performance.getMetrics");
    heaps.push((metrics.find(({ name }) => name === "JSHeapUsedSize")?.value ?? 0) / MB);
  };
  await page.evaluate((rows) => {
    Object.assign(window, { walked: { ids: new BigInt64Array(rows), count: 0, moved: 0, nodes: 0, isEnd: false } });
  }, ROWS + 1_000);
  const p95: number[] = [];
  const longest: number[] = [];
  for (let stretch = 1; stretch <= RUNS; stretch++) {
    const ends = stretch === RUNS ? Number.POSITIVE_INFINITY : Math.round((ROWS * stretch) / RUNS);
    let gaps: number[] = [];
    for (let isThere = false; !isThere; ) {
      // A few seconds at a time, so that memory is looked at from outside between them.
      const part = await page.evaluate(walkOn, { stepPx: STEP_PX, endRow: ends, forMs: 5_000 });
      gaps = gaps.concat(part.gaps);
      isThere = part.isThere;
      await sample();
    }
    p95.push(quantile(gaps, 0.95));
    longest.push(largest(gaps));
  }
  const seen = await page.evaluate(() => {
    const { ids, count, moved, nodes } = (window as unknown as { walked: Walked }).walked;
    return { ids: Array.from(ids.subarray(0, count), String), moved, nodes };
  });
  figures.add("scrolling: frame gap, p95", "ms", 20, p95);
  figures.add("scrolling: frame gap, longest", "ms", 100, longest, largest);
  figures.add("scrolling: heap", "MB", 150, heaps, largest);
  figures.add("scrolling: nodes of the document", "nodes", 3_000, [seen.nodes]);
  expect(seen.moved).toBe(0);
  // All that was there before, in order and once; of what Logfeed itself wrote meanwhile some may be among them.
  const shown = new Set(seen.ids);
  expect(before.filter((id) => !shown.has(id))).toEqual([]);
  const inOrder = storedIds().filter((id) => shown.has(id));
  expect(seen.ids.length).toBe(inOrder.length);
  expect(seen.ids.findIndex((id, index) => id !== inOrder[index])).toBe(-1);
  expect(seen.nodes).toBeLessThanOrEqual(3_000);
  await context.close();
});

interface Walked {
  ids: BigInt64Array;
  /** Places seen, from the top without a gap. */
  count: number;
  /** Rows that were at one place, then at another. */
  moved: number;
  nodes: number;
}

/** In the page: scroll on, a step a frame, noting the id at each place. Rows on their way are waited for. */
async function walkOn({ stepPx, endRow, forMs }: { stepPx: number; endRow: number; forMs: number }) {
  const { walked } = window as unknown as { walked: Walked };
  const table = document.querySelector(".table-scroll") as HTMLElement;
  const line = document.querySelector(".status-line") as HTMLElement;
  const gaps: number[] = [];
  let before = await new Promise<number>(requestAnimationFrame);
  const began = before;
  for (let frames = 0; ; frames++) {
    const now = await new Promise<number>(requestAnimationFrame);
    gaps.push(now - before);
    before = now;
    let first = Number.POSITIVE_INFINITY;
    const inSight: [number, bigint][] = [];
    for (const row of document.querySelectorAll<HTMLElement>(".log")) {
      inSight.push([Number(row.ariaRowIndex) - 1, BigInt(row.dataset.id as string)]);
    }
    // While rows come and go elements are in no order.
    for (const [place, id] of inSight.sort(([one], [other]) => one - other)) {
      first = Math.min(first, place);
      if (place === walked.count) walked.count += 1;
      else if (place > walked.count || walked.ids[place] !== id) walked.moved += 1;
      walked.ids[place] = id;
    }
    if (frames % 30 === 0) walked.nodes = Math.max(walked.nodes, document.querySelectorAll("*").length);
    const isEnd = table.scrollTop + table.clientHeight >= table.scrollHeight - 2;
    if ((isEnd && / lines$/.test(line.textContent ?? "")) || first >= endRow) return { gaps, isThere: true };
    if (now - began > forMs) return { gaps, isThere: false };
    table.scrollTop += stepPx;
  }
}

test("15 MB of lines", async () => {
  const text = "the quick request went from gateway to store and back ".repeat(4);
  const lines = Math.ceil((15 * MB) / (text.length + 20));
  await send(
    Array.from({ length: lines }, (_, index) => ({ service_name: "large", message: `${text} as number ${index}` })),
  );
  const { page, context } = await open(browser);
  await login(page, "/?from=all");
  await watched(page);
  const path = "/?from=all&service=large&mode=highlight";
  const first: number[] = [];
  const marked: number[] = [];
  for (let run = 0; run < RUNS; run++) {
    first.push(await firstRowMs(page, path));
    const search = page.getByRole("combobox", { name: "Search" });
    await search.fill("gateway");
    const ms = page.evaluate(async () => {
      const began = await new Promise<number>((resolve) => {
        document.addEventListener("keydown", () => resolve(performance.now()), { once: true, capture: true });
        document.documentElement.dataset.listens = "";
      });
      while (document.querySelectorAll(".log mark").length < 20) await new Promise(requestAnimationFrame);
      return (await new Promise<number>(requestAnimationFrame)) - began;
    });
    await page.locator("[data-listens]").waitFor({ state: "attached" });
    await page.keyboard.press("Enter");
    marked.push(await ms);
  }
  figures.add("15 MB of lines: first line", "ms", 1_000, first);
  figures.add("15 MB of lines: what is in sight is marked", "ms", 300, marked);
  await page.goto(`${path}&q=${encodeURIComponent("/(a+)+$/")}`);
  await page.locator(".log").first().waitFor();
  await page.getByRole("combobox", { name: "Search" }).fill("request");
  await page.locator("mark").first().waitFor();
  figures.add("an expression without end: longest task", "ms", 200, [largest([0, ...(await factsOf(page)).tasks])]);
  await context.close();
});

test("a log is in sight", async () => {
  const { page, context } = await open(browser);
  await login(page, "/?live=1&service=marked");
  await page.locator(".status-line", { hasText: "live" }).waitFor();
  const ages: number[] = [];
  for (let number = 0; number < MARKERS; number++) {
    const seen = page.evaluate(async (text) => {
      for (;;) {
        const now = await new Promise<number>(requestAnimationFrame);
        if (document.querySelector(".log .log-message")?.textContent === text) return performance.timeOrigin + now;
      }
    }, `marker ${number}`);
    const sentMs = performance.timeOrigin + performance.now();
    await send([{ service_name: "marked", message: `marker ${number}` }]);
    ages.push((await seen) - sentMs);
  }
  figures.add("ingest to visible, p95", "ms", 1_000, ages, (values) => quantile(values, 0.95));
  figures.add("ingest to visible, median", "ms", 1_000, ages, median);
  await context.close();
});

test("a reader is not moved by what comes above", async () => {
  const { page, context } = await open(browser);
  await login(page, "/?from=all&live=1");
  await page.locator(".status-line", { hasText: "live" }).waitFor();
  await page.evaluate(() => document.querySelector(".table-scroll")?.scrollBy(0, 3_000));
  const moved: number[] = [];
  for (let run = 0; run < RUNS; run++) {
    const anchor = await page.evaluate(() => {
      const rows = [...document.querySelectorAll<HTMLElement>(".log")];
      const row = rows.find((each) => each.getBoundingClientRect().top > 300) as HTMLElement;
      return { id: row.dataset.id, top: row.getBoundingClientRect().top };
    });
    await send(Array.from({ length: 1_000 }, (_, index) => ({ service_name: "above", message: `above ${index}` })));
    await page.getByRole("button", { name: `↑ ${((run + 1) * 1_000).toLocaleString("en")} new` }).waitFor();
    const top = await page.evaluate(
      (id) => document.querySelector(`[data-id="${id}"]`)?.getBoundingClientRect().top,
      anchor.id,
    );
    moved.push(Math.abs((top ?? Number.NaN) - anchor.top));
  }
  figures.add("a row when 1,000 come above: moves", "px", 1, moved, largest);
  expect(largest(moved)).toBeLessThanOrEqual(1);
  await context.close();
});

test("many logs a second, and somebody types", async () => {
  const { page, context } = await open(browser);
  await login(page, "/status");
  await watched(page);
  // What the page is handed, counted on its way in: rows, and those that were said to be left out.
  await page.addInitScript(() => {
    const handed = { rows: 0, skipped: 0 };
    Object.assign(window, { handed });
    const Plain = window.Worker;
    window.Worker = class extends Plain {
      constructor(url: string | URL, options?: WorkerOptions) {
        super(url, options);
        if (options?.name !== "tail") return;
        this.addEventListener("message", ({ data }) => {
          if (data.kind !== "batch") return;
          handed.rows += data.batch.rows.length;
          handed.skipped += data.batch.skipped;
        });
      }
    };
  });
  await page.goto("/?live=1&mode=highlight");
  await page.locator(".status-line", { hasText: "live" }).waitFor();
  const stored = storedLogs();
  const loading = generate({ rate: LIVE_RATE, seconds: LIVE_S, logs: 500 });
  let isOver = false;
  void loading.finally(() => {
    isOver = true;
  });
  await page.getByRole("combobox", { name: "Search" }).focus();
  for (let key = 0; !isOver; key++) {
    await page.keyboard.press(key % 10 === 9 ? "Control+a" : ("abcdefghi"[key % 10] ?? "a"));
    await new Promise((resolve) => setTimeout(resolve, 400));
  }
  const { accepted_logs: sent } = await loading;
  const handed = await until(
    async () => {
      const now = await page.evaluate(
        () => (window as unknown as { handed: { rows: number; skipped: number } }).handed,
      );
      return now.rows + now.skipped >= sent && now;
    },
    "all that was sent has come",
    120_000,
  );
  await until(async () => storedLogs() >= stored + sent, "all is stored", 120_000);
  const { tasks, inputs } = await factsOf(page);
  figures.add(`live at ${LIVE_RATE.toLocaleString("en")} logs/s: longest task`, "ms", 200, [largest([0, ...tasks])]);
  figures.add("live: typing to paint, p95", "ms", 200, inputs, (values) => quantile(values, 0.95));
  figures.add("live: left out", "logs", sent, [handed.skipped]);
  expect(handed.rows + handed.skipped).toBe(sent);
  const said = /([\d,]+) left out/.exec((await page.locator(".status-line").textContent()) ?? "")?.[1] ?? "0";
  expect(Number(said.replaceAll(",", ""))).toBe(handed.skipped);
  await context.close();
});

/** Both logs of a connection, in lines as `../data/connections` has them. */
function textOf(side: "server" | "client", lines: number): string {
  const began = Date.now() - lines * 10;
  const of =
    side === "client" ? ["Avg Decode Time: 0.00", "frame "] : ["Average Encode Time: 0.00", "Average Encode Size: 12"];
  return Array.from({ length: lines }, (_, index) => {
    const time = new Date(began + index * 10).toISOString().replace("T", " ").replace("Z", "");
    const spoken = (index * 7_919) % 90;
    const level = index % 97 === 0 ? "ERROR" : index % 53 === 0 ? "WARNING" : "INFO";
    const message = [`latency: 0.0${10 + spoken}`, `${of[0]}${1 + (spoken % 9)}`, `${of[1]}${100 + spoken}`][index % 3];
    return `${time} | ${level} | ${level === "ERROR" ? `Listen failed, retry ${index}` : message}`;
  }).join("\n");
}

async function put(path: string, type: string, body: string): Promise<void> {
  const { url, ingestKey } = inject("site");
  const answer = await fetch(`${url}/api/v1/connections/${path}`, {
    method: "PUT",
    headers: { Authorization: `Bearer ${ingestKey}`, "Content-Type": type },
    body,
  });
  const said = await answer.text();
  expect(answer.status, said).toBeLessThan(300);
}

test("connections", async () => {
  const numbers = Array.from({ length: CONNECTIONS }, (_, number) => number);
  const add = async () => {
    for (let number = numbers.pop(); number !== undefined; number = numbers.pop()) {
      const updated = new Date(Date.now() - number * 1_000).toISOString();
      const who = { username: number === 0 ? "large" : `user-${number % 500}`, ip: "10.1.2.3", version: "a1b2c3d" };
      await put(`c-${number}`, "application/json", JSON.stringify({ ...who, last_updated: updated }));
    }
  };
  await Promise.all(Array.from({ length: 4 }, add));
  const stored = storedLogs();
  for (const side of ["server", "client"] as const) {
    await put(`c-0/logs/${side}`, "text/plain", textOf(side, CONNECTION_LINES / 2));
  }
  await until(async () => storedLogs() >= stored + CONNECTION_LINES, "the lines are stored", 300_000);
  const { page, context } = await open(browser);
  await login(page, "/connections?username=large");
  const firstLine: number[] = [];
  const allPlots: number[] = [];
  for (let run = 0; run < RUNS; run++) {
    await page.goto("/connections?username=large");
    const seen = await page.evaluate(async (plots) => {
      let lineMs = 0;
      for (;;) {
        const now = await new Promise<number>(requestAnimationFrame);
        const has = ["server", "client"].every((side) =>
          document.querySelector(`[aria-label^="${side} log of"] .pane-row`),
        );
        if (has && lineMs === 0) lineMs = now;
        if (has && document.querySelectorAll(".plot-canvas canvas").length >= plots) return { lineMs, plotsMs: now };
      }
    }, 4);
    firstLine.push(seen.lineMs);
    allPlots.push(seen.plotsMs);
  }
  figures.add("a connection of 100,000 lines: both logs", "ms", 1_000, firstLine);
  figures.add("a connection of 100,000 lines: plots as well", "ms", 1_000, allPlots);
  const pages: number[] = [];
  let cursor = "";
  for (let run = 0; run < RUNS * 5; run++) {
    const began = performance.now();
    const found = await ask<{ next_cursor: string | null }>(`/api/v1/connections?limit=100${cursor}`);
    pages.push(performance.now() - began);
    cursor = found.next_cursor === null ? "" : `&cursor=${encodeURIComponent(found.next_cursor)}`;
  }
  figures.add("a page of 10,000 connections", "ms", 100, pages);
  await context.close();
});

test("a phone", async () => {
  const { page, context } = await open(browser, { size: PHONE });
  await login(page, "/?from=all");
  await watched(page);
  const times: number[] = [];
  for (let run = 0; run < RUNS; run++) times.push(await firstRowMs(page, "/?from=all"));
  figures.add("phone: first row", "ms", 1_000, times);
  const sideways = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
  figures.add("phone: sideways scroll", "px", 0, [Math.max(0, sideways)]);
  await context.close();
});
