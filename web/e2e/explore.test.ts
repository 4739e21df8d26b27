import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, expect, inject, test } from "vitest";
import { ask, assertSound, DESKTOP, launch, login, open, PHONE, type Scheme, send } from "./browser";
import { childOf, until } from "./site";

const LEVELS = ["debug", "info", "info", "info", "info", "warn", "error"];
const STORED = 25_000;
const NOW = Date.now();
let browser: Browser;

beforeAll(async () => {
  browser = await launch();
  await send(
    Array.from({ length: STORED }, (_, index) => ({
      service_name: `shop/${["cart", "checkout", "stock"][index % 3]}`,
      level: LEVELS[index % LEVELS.length] as string,
      message: `request ${index} took ${index % 97} ms for customer c-${index % 50}`,
      timestamp: new Date(NOW - index * 20).toISOString(),
      correlation_id: `order-${index >> 3}`,
      metadata: {
        http: { status: index % 7 === 6 ? 500 : 200, path: "/api/cart items" },
        customer: `c-${index % 50}`,
        ok: true,
      },
    })),
  );
  await send([{ service_name: "other", message: "for the narrow one", level: "info" }]);
  await until(async () => {
    const { services } = await ask<{ services: { service_name: string; counts: Record<string, number> }[] }>(
      "/api/v1/services",
    );
    const stored = services.filter(({ service_name }) => service_name.startsWith("shop/"));
    return stored.flatMap(({ counts }) => Object.values(counts)).reduce((sum, each) => sum + each, 0) >= STORED;
  }, "all logs are stored");
});
afterAll(() => browser.close());

const rows = (page: Page) => page.locator(".log");
const firstMessage = (page: Page) => page.locator(".log .log-message").first();
const shownIds = (page: Page) =>
  page.evaluate(() => [...document.querySelectorAll<HTMLElement>(".log")].map((row) => row.dataset.id as string));

/** Scrolls down, and waits until the rows of that place are drawn. */
async function scrolled(page: Page, by: number): Promise<void> {
  await page.evaluate(async (px) => {
    const table = document.querySelector(".table-scroll") as HTMLElement;
    table.scrollTop += px;
    const top = table.getBoundingClientRect().top;
    const isThere = (row: Element) => {
      const box = row.getBoundingClientRect();
      return box.top <= top && box.bottom > top;
    };
    while (![...document.querySelectorAll(".log")].some(isThere)) await new Promise(requestAnimationFrame);
  }, by);
}

for (const scheme of ["light", "dark"] as Scheme[]) {
  test(`is sound in each state, ${scheme}`, async () => {
    const opened = await open(browser, { scheme });
    const { page, context } = opened;
    await login(page, "/?from=all");
    await rows(page).first().waitFor();
    await assertSound(opened, `explore-${scheme}`);
    await rows(page).nth(3).click();
    await page.getByRole("region", { name: "Log", exact: true }).waitFor();
    await assertSound(opened, `explore-details-${scheme}`);
    const facts = await page.locator(".fact").evaluateAll((all) => all.map((each) => each.getBoundingClientRect()));
    expect(facts.length).toBeGreaterThan(2);
    for (const [index, { left, top, height }] of facts.entries()) {
      expect(left, "facts stand one below the other").toBe(facts[0]?.left);
      expect(top).toBeGreaterThanOrEqual(facts[index - 1]?.bottom ?? 0);
      expect(height, "a short one takes a line").toBeLessThan(60);
    }
    await page.goto("/?from=all&panel=patterns");
    await page.getByRole("region", { name: "Patterns" }).locator(".pattern").first().waitFor();
    await assertSound(opened, `explore-patterns-${scheme}`);
    await page.goto("/?from=all&story=order-7");
    await page.getByRole("grid", { name: "Story, oldest first" }).locator(".log").first().waitFor();
    await assertSound(opened, `explore-story-${scheme}`);
    await page.goto("/?from=all&q=nothing+has+this+text");
    await page.getByRole("heading", { name: "Nothing found" }).waitFor();
    await assertSound(opened, `explore-empty-${scheme}`);
    await page.goto("/?from=all&q=level%3Afetal");
    await page.getByText("did you mean fatal?").waitFor();
    await assertSound(opened, `explore-mistake-${scheme}`);
    await page.getByRole("combobox", { name: "Search" }).fill("le");
    await page.getByRole("option", { name: /level:/ }).waitFor();
    await assertSound(opened, `explore-completion-${scheme}`);
    await page.keyboard.press("Escape");
    await page.getByRole("combobox", { name: "Search" }).blur();
    await page.keyboard.press("t");
    await page.getByRole("dialog", { name: /Time range/ }).waitFor();
    await assertSound(opened, `explore-time-${scheme}`);
    await page.keyboard.press("Escape");
    await page.keyboard.press("?");
    await page.getByRole("heading", { name: "Searching and keys" }).waitFor();
    await assertSound(opened, `explore-help-${scheme}`);
    await page.route("**/api/v1/logs?*", (route) =>
      route.fulfill({
        status: 500,
        contentType: "application/problem+json",
        body: JSON.stringify({
          type: "urn:logfeed:problem:segment-damaged",
          title: "A file of logs is damaged",
          status: 500,
          detail: "segment x is damaged",
        }),
      }),
    );
    await page.goto("/?from=-6h");
    await page.getByRole("heading", { name: "A file of logs is damaged" }).waitFor();
    await assertSound(opened, `explore-error-${scheme}`);
    await page.unroute("**/api/v1/logs?*");
    let release = () => {};
    const held = new Promise<void>((resolve) => {
      release = resolve;
    });
    await page.route("**/api/v1/logs?*", async (route) => {
      await held;
      await route.continue();
    });
    await page.goto("/?from=-7d");
    await page.getByText("Searching", { exact: true }).waitFor();
    await assertSound(opened, `explore-loading-${scheme}`);
    release();
    await rows(page).first().waitFor();
    await context.close();
  });
}

test("scrolling to the oldest and back shows exactly what is stored, in a bounded document", async () => {
  const { page, context, errors } = await open(browser);
  await login(page, "/?from=all&service=shop%2F*");
  await rows(page).first().waitFor();
  const wanted: string[] = [];
  for (let path = "/api/v1/logs?limit=1000&service_name=shop/*"; ; ) {
    const part = await ask<{ logs: { id: string }[]; next_cursor: string | null }>(path);
    wanted.push(...part.logs.map(({ id }) => id));
    if (part.next_cursor === null) break;
    path = `/api/v1/logs?limit=1000&service_name=shop/*&cursor=${part.next_cursor}`;
  }
  /** Scrolls by frames, in the page, until its edge is reached and all is loaded; what was seen, by place. */
  const walk = (stepPx: number) =>
    page.evaluate(async (px) => {
      const seen = new Map<string, number>();
      const moved: string[] = [];
      let nodes = 0;
      const line = document.querySelector(".status-line") as HTMLElement;
      for (const began = Date.now(); Date.now() - began < 60_000; ) {
        const table = document.querySelector(".table-scroll") as HTMLElement;
        const top = table.getBoundingClientRect().top;
        for (const row of document.querySelectorAll<HTMLElement>(".log")) {
          const place = Math.round((row.getBoundingClientRect().top - top + table.scrollTop) / 22);
          const id = row.dataset.id as string;
          if ((seen.get(id) ?? place) !== place) moved.push(`${id}: ${seen.get(id)}, then ${place}`);
          seen.set(id, place);
        }
        nodes = Math.max(nodes, document.querySelectorAll("*").length);
        // Rows that are on their way are waited for, as a reader does.
        const isWaiting = document.querySelector(".log-absent") !== null;
        const isEnd = table.scrollTop + table.clientHeight >= table.scrollHeight - 2;
        if (!isWaiting && px > 0 && isEnd && /lines$/.test(line.textContent ?? "")) break;
        if (!isWaiting && px < 0 && table.scrollTop === 0) break;
        if (!isWaiting) table.scrollTop += px;
        await new Promise(requestAnimationFrame);
        await new Promise((resolve) => setTimeout(resolve));
      }
      return { nodes, moved, ids: [...seen].sort((a, b) => a[1] - b[1]).map(([id]) => id) };
    }, stepPx);
  for (const step of [1_100, -1_100]) {
    const { nodes, moved, ids } = await walk(step);
    expect(moved).toEqual([]);
    expect(ids).toEqual(wanted);
    expect(nodes).toBeLessThanOrEqual(3_000);
  }
  expect(errors).toEqual([]);
  await context.close();
});

test("live logs appear by themselves at the top; who scrolled away is not moved, and asked", async () => {
  const { page, context, errors } = await open(browser);
  await login(page, "/?live=1&service=live");
  await page.getByText("Nothing found").waitFor();
  await page.locator(".status-line", { hasText: "live" }).waitFor();
  const burst = (name: string, count: number) =>
    send(Array.from({ length: count }, (_, index) => ({ service_name: "live", message: `${name} ${index}` })));
  const first = await burst("first", 300);
  await page.locator(".status-line", { hasText: "300 lines" }).waitFor();
  expect(first.every((id) => id !== "")).toBe(true);
  await scrolled(page, 2_000);
  const anchor = page.locator(".log", { hasText: /first \d+/ }).nth(30);
  const id = await anchor.getAttribute("data-id");
  const top = () =>
    page.evaluate((each) => document.querySelector(`[data-id="${each}"]`)?.getBoundingClientRect().top, id);
  const before = await top();
  await burst("second", 1_000);
  const button = page.getByRole("button", { name: "↑ 1,000 new" });
  await button.waitFor();
  expect(Math.abs(((await top()) as number) - (before as number))).toBeLessThanOrEqual(1);
  await button.click();
  await expect.poll(() => firstMessage(page).textContent()).toMatch(/^second/);
  await page.locator(".status-line", { hasText: "1,300 lines" }).waitFor();
  await page.locator(".table-scroll").focus();
  await page.keyboard.press("Space");
  await page.locator(".status-line", { hasText: "paused" }).waitFor();
  await burst("third", 10);
  await page.getByRole("button", { name: "↑ 10 new" }).waitFor();
  await expect.poll(() => firstMessage(page).textContent()).toMatch(/^second/);
  await page.keyboard.press("Space");
  await expect.poll(() => firstMessage(page).textContent()).toMatch(/^third/);
  expect(errors).toEqual([]);
  await context.close();
});

test("a tail whose server is killed goes on where it stood, and shows each log once", async () => {
  const { page, context } = await open(browser);
  await login(page, "/?live=1&service=cut");
  await page.locator(".status-line", { hasText: "live" }).waitFor();
  await send([{ service_name: "cut", message: "before" }]);
  await page.locator(".log", { hasText: "before" }).waitFor();
  process.kill(childOf(inject("site").pid, "serve"), "SIGKILL");
  await page.locator(".status-line", { hasText: "live again shortly" }).waitFor();
  const meanwhile = Array.from({ length: 50 }, (_, index) => ({ service_name: "cut", message: `meanwhile ${index}` }));
  await until(() => send(meanwhile).catch(() => null), "the server is back", 60_000);
  await page.locator(".status-line", { hasText: "51 lines" }).waitFor({ timeout: 60_000 });
  const ids = await shownIds(page);
  expect(new Set(ids).size).toBe(ids.length);
  await context.close();
});

test("typing asks the server, marks what was found, and back brings the query before", async () => {
  const { page, context } = await open(browser);
  await login(page, "/?from=all&service=shop%2F*");
  await rows(page).first().waitFor();
  const search = page.getByRole("combobox", { name: "Search" });
  await page.keyboard.press("/");
  await page.keyboard.type("took 13 ms");
  await page.waitForURL("**q=took**");
  await expect.poll(() => page.locator("mark").first().textContent()).toMatch(/took|13|ms/);
  await page.keyboard.press("Enter");
  await search.fill("/c-1\\d$/");
  await page.keyboard.press("Enter");
  await expect.poll(() => page.locator("mark").first().textContent()).toMatch(/^c-1\d$/);
  await page.goBack();
  await expect.poll(() => search.inputValue()).toBe("took 13 ms");
  await page.reload();
  await expect.poll(() => search.inputValue()).toBe("took 13 ms");
  await context.close();
});

test("highlighting keeps all lines, and an expression without end leaves the page alive", async () => {
  const { page, context } = await open(browser);
  const [id] = await send([{ service_name: "evil", message: `${"a".repeat(60)}!` }]);
  await until(async () => (await ask<{ log?: unknown }>(`/api/v1/logs/${id}`)).log, "the line is stored");
  await login(page, "/?from=all&service=evil&service=shop%2F*&mode=highlight&q=%2F%28a%2B%29%2B%24%2F");
  await page.getByText("too slow to be marked").waitFor();
  await rows(page).first().waitFor();
  await page.getByRole("combobox", { name: "Search" }).fill("request");
  await expect.poll(() => page.locator("mark").count()).toBeGreaterThan(3);
  await context.close();
});

test("a value is included, excluded, and the query says so", async () => {
  const { page, context } = await open(browser);
  await login(page, "/?from=all&service=shop%2F*");
  await rows(page).first().click();
  await page.getByRole("button", { name: 'Not http.path:"/api/cart items"' }).click();
  await page.getByRole("heading", { name: "Nothing found" }).waitFor();
  expect(await page.getByRole("combobox", { name: "Search" }).inputValue()).toBe('-http.path:"/api/cart items"');
  await page.goBack();
  await page.getByRole("button", { name: /^Only http.status:/ }).click();
  await page.waitForURL(/q=http.status/);
  await rows(page).first().waitFor();
  await context.close();
});

test("surrounding lines come into their places without moving the line; a story crosses services", async () => {
  const { page, context } = await open(browser);
  await login(page, `/?from=all&q=${encodeURIComponent('service:shop/cart "request 300 "')}`);
  await rows(page).first().waitFor();
  await expect.poll(() => rows(page).count()).toBe(1);
  await page.keyboard.press("j");
  await page.keyboard.press("x");
  // Those in sight are in the document; there are twenty on either side.
  const logs = page.getByRole("grid", { name: "Logs, newest first" });
  await expect.poll(() => logs.getAttribute("aria-rowcount")).toBe("41");
  expect(await page.locator(".log-context").count()).toBeGreaterThan(20);
  await page.keyboard.press("x");
  await expect.poll(() => page.locator(".log-context").count()).toBe(0);
  await page.keyboard.press("Enter");
  await page.getByRole("button", { name: "Whole story" }).click();
  const story = page.getByRole("grid", { name: "Story, oldest first" });
  await expect.poll(() => story.locator(".log").count()).toBe(8);
  const services = await story.locator(".log-service").allTextContents();
  expect(new Set(services).size).toBe(3);
  await page.goBack();
  await expect.poll(() => rows(page).count()).toBe(1);
  await context.close();
});

test("keys walk the table", async () => {
  const { page, context } = await open(browser);
  await login(page, "/?from=all&service=shop%2F*");
  await rows(page).first().waitFor();
  const chosen = () => page.locator('.log[aria-selected="true"]');
  await page.keyboard.press("j");
  await page.keyboard.press("j");
  await expect.poll(() => chosen().getAttribute("data-id")).toBe((await shownIds(page))[1]);
  await page.keyboard.press("e");
  expect(await chosen().getAttribute("data-level")).toBe("ERROR");
  await page.keyboard.press("w");
  expect(await chosen().getAttribute("data-level")).toBe("WARN");
  await page.keyboard.press("G");
  await page.locator(".log", { hasText: `request ${STORED - 1} took` }).waitFor();
  await page.keyboard.press("g");
  await page.locator(".log", { hasText: "request 0 took" }).waitFor();
  await context.close();
});

/** How far a row's middle is from the table's, in pixels. */
const fromMiddle = (page: Page, id: string) =>
  page.evaluate((each) => {
    const table = document.querySelector(".table-scroll")?.getBoundingClientRect();
    const row = document.querySelector(`[data-id="${each}"]`)?.getBoundingClientRect();
    if (table === undefined || row === undefined) return Number.NaN;
    return Math.abs((row.top + row.bottom - table.top - table.bottom) / 2);
  }, id);

test("a line and its link can be copied; the link opens it amid its neighbours, and leads on both ways", async () => {
  const { page, context } = await open(browser);
  await login(page, `/?from=all&q=${encodeURIComponent('service:shop/* "request 12000 "')}`);
  await rows(page).first().click();
  const id = new URL(page.url()).searchParams.get("log") as string;
  await page.getByRole("button", { name: "Copy line" }).click();
  expect(await page.evaluate(() => navigator.clipboard.readText())).toMatch(
    / (DEBUG|INFO|WARN|ERROR) shop\/\w+ \[order-\d+\] request \d+ took/,
  );
  await page.getByRole("button", { name: "Copy link" }).click();
  const link = await page.evaluate(() => navigator.clipboard.readText());
  await page.goto(link);
  await page.getByRole("region", { name: "Log", exact: true }).waitFor();
  // The page above has come, too.
  await expect
    .poll(async () => Number(await page.locator("[aria-rowcount]").getAttribute("aria-rowcount")))
    .toBeGreaterThan(1_200);
  expect(await fromMiddle(page, id)).toBeLessThanOrEqual(22);
  const messages = await page.locator(".log .log-message").allTextContents();
  const numbers = messages.map((text) => Number(/^request (\d+)/.exec(text)?.[1]));
  expect(numbers).toContain(12_000);
  expect(numbers).toEqual(numbers.map((_, index) => (numbers[0] as number) + index));
  await page.locator(".table-scroll").focus();
  await page.keyboard.press("g");
  await page.locator('.log[aria-rowindex="1"]').waitFor();
  await context.close();
});

test("e goes on beyond what is loaded, to a line in the midst of its neighbours", async () => {
  const { page, context } = await open(browser);
  const DEEP = 4_000;
  const ids = await send(
    Array.from({ length: DEEP }, (_, index) => ({
      service_name: "deep",
      level: index === DEEP - 100 ? "error" : "info",
      message: `deep ${index}`,
      timestamp: new Date(NOW - index * 10).toISOString(),
    })),
  );
  const id = ids[DEEP - 100] as string;
  await until(async () => (await ask<{ log?: unknown }>(`/api/v1/logs/${ids[DEEP - 1]}`)).log, "all are stored");
  await login(page, "/?from=all&service=deep");
  await rows(page).first().waitFor();
  await page.keyboard.press("e");
  await page.waitForURL(`**at=${id}*`);
  const chosen = page.locator('.log[aria-selected="true"]');
  await expect.poll(() => chosen.getAttribute("data-id")).toBe(id);
  await expect.poll(() => fromMiddle(page, id)).toBeLessThanOrEqual(22);
  await page.keyboard.press("e");
  await page.getByText("No further error").waitFor();
  await page.goBack();
  await page.locator(".log", { hasText: "deep 0" }).first().waitFor();
  await context.close();
});

test("who has one service finds, marks and follows it, and sees nothing else", async () => {
  const opened = await open(browser);
  const { page, context } = opened;
  const answers: string[] = [];
  page.on("response", async (response) => {
    if (!response.url().includes("/api/")) return;
    const text = await response.text().catch(() => "");
    answers.push(`${new URL(response.url()).pathname} ${text}`);
  });
  const ofOthers = async () => {
    const shown = await page.locator("body").textContent();
    return [shown ?? "", ...answers].filter((text) => /shop\/|request \d+ took/.test(text));
  };
  await login(page, "/?from=all&live=1", inject("site").single);
  await page.locator(".log", { hasText: "for the narrow one" }).waitFor();
  await page.locator(".status-line", { hasText: "live" }).waitFor();
  await page.getByRole("button", { name: "Services: other" }).waitFor();
  await send([
    { service_name: "shop/cart", message: "request 1 took 1 ms", level: "error" },
    { service_name: "other", message: "came while it was live", correlation_id: "order-7" },
  ]);
  await page.locator(".log", { hasText: "came while it was live" }).waitFor();
  const sizes = await page.evaluate(() => [document.documentElement.scrollHeight, window.innerHeight]);
  expect(sizes[0]).toBe(sizes[1]);
  const search = page.getByRole("combobox", { name: "Search" });
  await search.fill("narrow");
  await page.locator("mark", { hasText: "narrow" }).first().waitFor();
  await expect.poll(() => page.locator(".log", { hasText: "came while" }).count()).toBe(0);
  await page.getByRole("button", { name: "Highlight" }).click();
  await search.fill("/n.rr\\w+/");
  await page
    .locator("mark", { hasText: /^narrow$/ })
    .first()
    .waitFor();
  await page.locator(".log", { hasText: "came while it was live" }).waitFor();
  await search.fill("service:");
  await page.getByRole("option", { name: "service:other" }).waitFor();
  expect(await page.getByRole("option").count()).toBe(1);
  await page.goto("/?from=all&panel=patterns");
  await page.getByRole("region", { name: "Patterns" }).waitFor();
  await page.goto("/?from=all&story=order-7");
  await page.getByText("There is more, of services that you may not read").waitFor();
  const { logs } = await ask<{ logs: { id: string }[] }>("/api/v1/logs?service_name=shop/cart&limit=1");
  await page.goto(`/?from=all&service=shop%2Fcart&log=${logs[0]?.id}`);
  await page.getByRole("region", { name: "Log", exact: true }).getByRole("heading").waitFor();
  await page.goto("/?from=all");
  await page.locator(".log", { hasText: "for the narrow one" }).waitFor();
  expect((await ofOthers()).map((text) => text.slice(0, 500))).toEqual([]);
  expect(answers.some((text) => text.startsWith("/api/v1/logs "))).toBe(true);
  await page.getByRole("button", { name: "Settings: single" }).click();
  await page.getByRole("menuitem", { name: "Sign out" }).click();
  await page.waitForURL("**/login?return_to=*");
  await context.close();
});

test("services are those that may be read; who may not tail is not offered it", async () => {
  const { page, context } = await open(browser);
  await login(page, "/?from=all", inject("site").narrow);
  await page.locator(".log", { hasText: "for the narrow one" }).waitFor();
  await page.getByRole("button", { name: /^Services/ }).click();
  expect(await page.getByRole("group", { name: "Services" }).getByRole("checkbox").count()).toBe(1);
  expect(await page.getByRole("button", { name: "Live" }).count()).toBe(0);
  await context.close();
});

test("a time that was typed is kept as a moment, one that is none is told", async () => {
  const { page, context } = await open(browser, { size: DESKTOP });
  await login(page);
  await page.getByRole("button", { name: /^Time range/ }).waitFor();
  await page.keyboard.press("t");
  await page.getByLabel("From").fill("noonish");
  await page.getByRole("button", { name: "Apply" }).click();
  await page.getByText("From is not a time").waitFor();
  await page.getByLabel("From").fill("yesterday 17:30");
  await page.getByRole("button", { name: "Apply" }).click();
  await page.waitForURL(/from=\d{4}-\d\d-\d\dT17%3A30%3A00.000Z/);
  await context.close();
});

test("every journey works on a phone", async () => {
  for (const scheme of ["light", "dark"] as Scheme[]) {
    const opened = await open(browser, { size: PHONE, scheme });
    const { page, context } = opened;
    // Those of a story: other journeys leave errors that are of none.
    await login(page, "/?from=all&service=shop%2F*&q=customer");
    await rows(page).first().waitFor();
    await assertSound(opened, `phone-${scheme}`);
    await page.getByRole("button", { name: "Facets" }).click();
    await page.getByRole("dialog").getByRole("button", { name: "ERROR" }).click();
    await page.waitForURL(/level=ERROR/);
    await assertSound(opened, `phone-facets-${scheme}`);
    await page.getByRole("button", { name: "Close" }).click();
    await expect.poll(() => page.locator('.log:not([data-level="ERROR"])').count()).toBe(0);
    await rows(page).first().click();
    await page.getByRole("region", { name: "Log", exact: true }).waitFor();
    await assertSound(opened, `phone-details-${scheme}`);
    await page.getByRole("button", { name: "Whole story" }).click();
    await page.getByRole("button", { name: "Close details" }).click();
    await page.getByRole("grid", { name: "Story, oldest first" }).locator(".log").first().waitFor();
    await assertSound(opened, `phone-story-${scheme}`);
    await page.getByRole("button", { name: "Back to the search" }).click();
    await page.getByRole("button", { name: /^Time range/ }).click();
    await assertSound(opened, `phone-time-${scheme}`);
    await page.keyboard.press("Escape");
    await page.getByRole("link", { name: "Status" }).click();
    await page.waitForURL("**/status");
    await context.close();
  }
});
