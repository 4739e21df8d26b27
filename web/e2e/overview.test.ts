/** What the page shows of routes that a server may not have: without them it offers nothing, with them it is whole. */
import { readFileSync } from "node:fs";
import type { Browser } from "playwright-core";
import { afterAll, beforeAll, expect, test } from "vitest";
import { ask, assertSound, launch, login, open, PHONE, type Scheme, send } from "./browser";
import { until } from "./site";

const LOGS = 700;
let browser: Browser;

beforeAll(async () => {
  browser = await launch();
  const now = Date.now();
  await send(
    Array.from({ length: LOGS }, (_, index) => ({
      service_name: "counted",
      level: index % 7 === 0 ? "error" : "info",
      message: `counted ${index}`,
      timestamp: new Date(now - index * 4_000).toISOString(),
      metadata: { zone: index % 2 === 0 ? "north" : "south" },
    })),
  );
  await until(async () => {
    const { logs } = await ask<{ logs: unknown[] }>("/api/v1/logs?service_name=counted&limit=1000");
    return logs.length === LOGS;
  }, "all logs are stored");
});
afterAll(() => browser.close());

test("a server without these routes is offered none of them, and nothing breaks", async () => {
  const opened = await open(browser);
  const { page, context } = opened;
  for (const path of ["histogram", "facets", "bookmarks", "views"]) {
    await page.route(`**/api/v1/${path}*`, (route) =>
      route.fulfill({
        status: 404,
        contentType: "application/problem+json",
        body: JSON.stringify({ type: "urn:logfeed:problem:no-such-path", title: "no", status: 404, detail: "no" }),
      }),
    );
  }
  await login(page, "/?service=counted");
  await page.locator(".log").first().click();
  await page.getByRole("region", { name: "Log", exact: true }).waitFor();
  expect(await page.locator(".histogram").count()).toBe(0);
  expect(await page.getByRole("button", { name: "Bookmark" }).count()).toBe(0);
  await page.getByRole("button", { name: "More" }).click();
  expect(await page.getByRole("menuitem", { name: /Save this view/ }).count()).toBe(0);
  await assertSound(opened, "without-routes");
  await context.close();
});

for (const scheme of ["light", "dark"] as Scheme[]) {
  test(`counts over time and by value lead on, ${scheme}`, async () => {
    const opened = await open(browser, { scheme });
    const { page } = opened;
    await login(page, "/?service=counted&from=-2h");
    await page.getByText(`${LOGS} logs`).waitFor();
    await page.locator(".facet-choose", { hasText: "north" }).waitFor();
    await assertSound(opened, `overview-${scheme}`);
    expect(await page.locator(".facet-choose", { hasText: "ERROR" }).textContent()).toContain(String(LOGS / 7));
    await page.locator(".facet-choose", { hasText: "north" }).click();
    await page.getByText(`${LOGS / 2} logs`).waitFor();
    expect(await page.getByRole("combobox", { name: "Search" }).inputValue()).toBe("zone:north");
    const plot = await page.locator(".histogram .u-over").boundingBox();
    if (plot === null) throw new Error("there is no plot");
    await page.mouse.move(plot.x + plot.width * 0.7, plot.y + 20);
    await page.mouse.down();
    await page.mouse.move(plot.x + plot.width * 0.8, plot.y + 20, { steps: 4 });
    await page.mouse.up();
    await page.waitForURL(/from=\d{4}-.*to=\d{4}-/);
    await page.goBack();
    await page.getByText(`${LOGS / 2} logs`).waitFor();
    await opened.context.close();
  });
}

test("metadata fields have columns and counts of one's choice, which the address keeps", async () => {
  const opened = await open(browser);
  const { page } = opened;
  await login(page, "/?service=counted&from=-2h");
  await page.locator(".log").first().waitFor();
  await page.getByRole("button", { name: "Columns" }).click();
  await page.getByRole("checkbox", { name: "zone" }).check();
  await page.keyboard.press("Escape");
  await page.getByRole("button", { name: /^Counted fields/ }).click();
  await page.getByRole("checkbox", { name: "zone" }).check();
  await page.keyboard.press("Escape");
  await page.waitForURL(/column=zone&facet=zone/);
  await page.reload();
  await page.locator(".log .log-field").first().waitFor();
  const cells = await page.locator(".log .log-field").allTextContents();
  expect(new Set(cells)).toEqual(new Set(["north", "south"]));
  expect(await page.locator(".log-head").textContent()).toContain("zone");
  await expect.poll(() => page.locator(".facet h2").allTextContents()).toEqual(["Level", "Service", "zone"]);
  await assertSound(opened, "columns");
  await opened.context.close();
});

test("bookmarks and views are kept for who made them", async () => {
  const opened = await open(browser);
  const { page } = opened;
  await login(page, "/?service=counted&from=-2h");
  await page.locator(".log").nth(2).click();
  const id = new URL(page.url()).searchParams.get("log") as string;
  await page.getByRole("button", { name: "Bookmark" }).click();
  await page.locator(".toast", { hasText: "Bookmarked" }).waitFor();
  await page.getByRole("textbox", { name: "Note" }).fill("asked the north about it");
  await page.keyboard.press("Enter");
  await page.locator(".toast", { hasText: "Note kept" }).waitFor();
  await page.keyboard.press("Escape");
  await page.getByRole("button", { name: "More" }).click();
  await page.getByRole("menuitem", { name: /Save this view/ }).click();
  await page.getByLabel("Name").fill("Counted ones");
  await page.getByRole("button", { name: "Save", exact: true }).click();
  await page.getByText("View saved").waitFor();
  await page.goto("/status");
  await page.goto("/?from=all");
  await page.getByRole("button", { name: "More" }).click();
  await assertSound(opened, "more-menu");
  await page.getByRole("menuitem", { name: "Counted ones" }).click();
  await page.waitForURL(/service=counted/);
  await page.getByRole("button", { name: "More" }).click();
  await page.getByRole("menuitem", { name: "Bookmarks (1)" }).click();
  await page.getByRole("dialog").getByText("asked the north about it").waitFor();
  await page.getByRole("dialog").getByText(id).click();
  await page.waitForURL(new RegExp(`log=${id}`));
  await page.getByRole("button", { name: "Bookmark" }).click();
  await page.getByText("Bookmark removed").waitFor();
  await opened.context.close();
});

test("the whole result is exported as a file", async () => {
  const opened = await open(browser);
  const { page } = opened;
  // No window of the browser's own can be answered here: this is the way of browsers that have none.
  await page.addInitScript(() => Reflect.deleteProperty(window, "showSaveFilePicker"));
  await login(page, "/?service=counted&level=ERROR&from=all");
  for (const [name, lines] of [
    ["NDJSON", LOGS / 7],
    ["CSV", LOGS / 7 + 1],
  ] as const) {
    await page.getByRole("button", { name: "More" }).click();
    const downloading = page.waitForEvent("download");
    await page.getByRole("menuitem", { name: `Export all as ${name}` }).click();
    const file = await (await downloading).path();
    expect(readFileSync(file, "utf8").trim().split(/\r?\n/)).toHaveLength(lines);
  }
  await opened.context.close();
});

test("counts fit a phone", async () => {
  const opened = await open(browser, { size: PHONE });
  await login(opened.page, "/?service=counted&from=-2h");
  await opened.page.getByText(`${LOGS} logs`).waitFor();
  await assertSound(opened, "overview-phone");
  await opened.context.close();
});
