import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, expect, inject, test } from "vitest";
import { ask, assertSound, launch, login, open, PHONE, type Scheme } from "./browser";
import { until } from "./site";

const LINES = 1_500;
const NOW = Date.now() - 3_600_000;
let browser: Browser;

async function put(path: string, body: string, type: string): Promise<void> {
  const answer = await fetch(`${inject("site").url}/api/v1/connections/${path}`, {
    method: "PUT",
    headers: { Authorization: `Bearer ${inject("site").ingestKey}`, "Content-Type": type },
    body,
  });
  expect(answer.status, await answer.text()).toBeLessThan(300);
}

function textOf(side: "server" | "client", seed: number, lines = LINES): string {
  return Array.from({ length: lines }, (_, index) => {
    const time = new Date(NOW + index * 100).toISOString().replace("T", " ").replace("Z", "");
    const level = index % 97 === seed ? "ERROR" : index % 53 === 0 ? "WARNING" : "INFO";
    const spoken = (index * 7 + seed) % 90;
    const message = [
      `latency: 0.0${10 + spoken}`,
      side === "client" ? `Avg Decode Time: 0.00${1 + (spoken % 9)}` : `Average Encode Time: 0.00${1 + (spoken % 9)}`,
      side === "client" ? `frame ${index}` : `Average Encode Size: ${12_000 + spoken}.5`,
      level === "ERROR" ? `Connection reset by peer (errno ${index})` : `tick ${index}`,
    ][index % 4];
    return `${time} | ${level} | ${level === "ERROR" ? `Listen failed, retry ${index}` : message}`;
  }).join("\n");
}

beforeAll(async () => {
  browser = await launch();
  for (let number = 1; number <= 45; number++) {
    const updated = new Date(NOW - number * 60_000).toISOString();
    const who = { username: number % 2 === 0 ? "ada@example.com" : "grace@example.com", ip: `10.1.2.${number}` };
    await put(`c-${number}`, JSON.stringify({ ...who, version: "a1b2c3d", last_updated: updated }), "application/json");
  }
  await put("c-1/logs/server", textOf("server", 1), "text/plain");
  await put("c-1/logs/client", textOf("client", 2), "text/plain");
  await put("c-2/logs/client", textOf("client", 3, 200), "text/plain");
  await put("c-3/logs/server", textOf("server", 4, 200), "text/plain");
  await until(async () => {
    const { logs } = await ask<{ logs: unknown[] }>("/api/v1/logs?correlation_id=c-3&limit=200");
    const both = await ask<{ next_cursor: string | null }>("/api/v1/connections/c-1/logs?limit=1000");
    return logs.length === 200 && both.next_cursor !== null;
  }, "the lines are stored");
});
afterAll(() => browser.close());

const card = (page: Page, id: string) => page.getByRole("listitem", { name: `Connection ${id}`, exact: true });

for (const [scheme, size] of [["light"], ["dark", PHONE]] as [Scheme, typeof PHONE | undefined][]) {
  test(`connections have both logs, figures and plots, ${scheme}${size === undefined ? "" : ", on a phone"}`, async () => {
    const opened = await open(browser, size === undefined ? { scheme } : { scheme, size });
    const { page, context } = opened;
    const name = `connections-${scheme}${size === undefined ? "" : "-phone"}`;
    await login(page, "/connections");
    const one = card(page, "c-1");
    await one.locator(".pane-row").first().waitFor();
    await expect.poll(() => one.locator(".plot-canvas canvas").count()).toBe(4);
    await page.getByRole("region", { name: "Most common errors" }).getByText("Listen failed").waitFor();
    await page.getByText(/^n = \d+ connections/).waitFor();
    await one
      .getByText(/ERROR 16 \(1.07%\)/)
      .first()
      .waitFor();
    await assertSound(opened, name);
    if (size !== undefined) {
      await one.getByRole("button", { name: "client" }).click();
      await page.waitForURL(/side=client/);
      await one.getByRole("region", { name: "client log of c-1" }).locator(".pane-row").first().waitFor();
      await one.scrollIntoViewIfNeeded();
      await assertSound(opened, `${name}-client`);
    } else {
      await card(page, "c-2").scrollIntoViewIfNeeded();
      await card(page, "c-2").getByText("no server log").waitFor();
      await card(page, "c-3").scrollIntoViewIfNeeded();
      await card(page, "c-3").getByText("no client log").waitFor();
      await assertSound(opened, `${name}-missing`);
    }
    await page.getByRole("button", { name: "List only" }).click();
    await page.waitForURL(/show=list/);
    await assertSound(opened, `${name}-list`);
    await context.close();
  });
}

test("a point of a plot leads to its line, loaded or not", async () => {
  const { page, context, errors } = await open(browser);
  await login(page, "/connections?username=grace");
  const one = card(page, "c-1");
  await expect.poll(() => one.locator(".plot-canvas canvas").count()).toBe(4);
  await one.getByRole("region", { name: "server log of c-1" }).locator(".pane-row").first().waitFor();
  // The button says the same as the plot does: where the pointer is, else the highest.
  const plot = one.locator(".plot").nth(3);
  const selected = one.getByRole("region", { name: "server log of c-1" }).locator('.pane-row[aria-selected="true"]');
  let before: string | undefined;
  for (const share of [0.97, 0.02, 0.6]) {
    const box = await plot.locator(".u-over").boundingBox();
    if (box === null) throw new Error("no plot");
    await plot.locator(".u-over").click({ position: { x: box.width * share, y: box.height / 2 } });
    let line: string | undefined;
    await until(async () => {
      const said = await plot.locator(".plot-point").textContent();
      line = /line (\d+)/.exec(said ?? "")?.[1];
      const isShown = (await selected.count()) === 1 && (await selected.getAttribute("data-line")) === line;
      return isShown && line !== before;
    }, "the point's line is shown");
    before = line;
    await selected.getByText("Average Encode Size").waitFor();
  }
  await one.getByRole("button", { name: "From the first line" }).click();
  await expect
    .poll(() =>
      one.getByRole("region", { name: "server log of c-1" }).locator(".pane-row").first().getAttribute("data-line"),
    )
    .toBe("1");
  expect(errors).toEqual([]);
  await context.close();
});

test("all that is stored is searched by username, and scrolling loads the rest", async () => {
  const opened = await open(browser);
  const { page, context } = opened;
  await login(page, "/connections?show=list");
  await card(page, "c-1").waitFor();
  await until(async () => {
    await page.evaluate(() => document.querySelector("#view")?.scrollBy(0, 5_000));
    return (await page.getByRole("list", { name: "Connections" }).locator(".connection").count()) === 45;
  }, "all are loaded");
  await page.getByLabel("Find by username").fill("ada");
  await page.waitForURL(/username=ada/);
  await card(page, "c-2").waitFor();
  await expect.poll(() => page.getByText("grace@example.com").count()).toBe(0);
  await page.getByRole("button", { name: "With errors" }).click();
  await expect.poll(() => page.locator(".connection").count()).toBe(1);
  await page.reload();
  await card(page, "c-2").waitFor();
  expect(await page.getByLabel("Find by username").inputValue()).toBe("ada");
  await page.getByLabel("Find by username").fill("nobody like this");
  await page.getByRole("heading", { name: "No such connection" }).waitFor();
  await assertSound(opened, "connections-not-found");
  await context.close();
});

test("lines go on to the last as the reader scrolls", async () => {
  const { page, context } = await open(browser);
  await login(page, "/connections?username=grace");
  const pane = card(page, "c-1").getByRole("region", { name: "client log of c-1" });
  await pane.locator(".pane-row").first().waitFor();
  const seen = new Set<string>();
  await until(
    async () => {
      const shown = await pane.evaluate((element) => {
        const lines = [...element.querySelectorAll<HTMLElement>(".pane-row")].map(
          ({ dataset }) => dataset.line as string,
        );
        const table = element.querySelector(".table-scroll");
        if (table !== null) table.scrollTop += 400;
        return lines;
      });
      for (const line of shown) seen.add(line);
      return seen.size >= LINES;
    },
    "all lines were seen",
    60_000,
  );
  expect(seen.size).toBe(LINES);
  await context.close();
});

test("who may not, waits, or meets an error is told so", async () => {
  const nobody = await open(browser);
  await login(nobody.page, "/connections", inject("site").nobody);
  await nobody.page.getByText("You lack the permission read").waitFor();
  await assertSound(nobody, "connections-no-permission");
  await nobody.context.close();
  const narrow = await open(browser);
  await login(narrow.page, "/connections", inject("site").narrow);
  await narrow.page.getByRole("heading", { name: "No connection yet" }).waitFor();
  await assertSound(narrow, "connections-none");
  await narrow.context.close();

  const opened = await open(browser);
  const { page, context } = opened;
  await login(page, "/settings");
  let release = () => {};
  const held = new Promise<void>((resolve) => {
    release = resolve;
  });
  let isBroken = true;
  await page.route("**/api/v1/connections?*", async (route) => {
    await held;
    if (!isBroken) return route.continue();
    await route.fulfill({
      status: 422,
      contentType: "application/problem+json",
      body: JSON.stringify({
        type: "urn:x:y",
        title: "A parameter is not valid",
        status: 422,
        detail: "too many connections",
      }),
    });
  });
  await page.getByRole("navigation", { name: "Views" }).getByRole("link", { name: "Connections" }).click();
  await page.getByText("Asking for connections").waitFor();
  await assertSound(opened, "connections-loading");
  release();
  await page.getByText("too many connections").waitFor();
  await assertSound(opened, "connections-error");
  isBroken = false;
  await page.getByRole("button", { name: "Try again" }).click();
  await card(page, "c-1").waitFor();
  await context.close();
});

test("a bookmarked connection is found among the bookmarked ones", async () => {
  const { page, context, errors } = await open(browser);
  await login(page, "/connections?show=list");
  const mark = card(page, "c-2").getByRole("button", { name: "Bookmark c-2" });
  await mark.click();
  await expect.poll(() => mark.getAttribute("aria-pressed")).toBe("true");
  await page.getByRole("button", { name: "★ Bookmarked" }).click();
  await page.waitForURL(/bookmarked=1/);
  await expect.poll(() => page.locator(".connection").count()).toBe(1);
  await page.reload();
  await card(page, "c-2").getByRole("button", { name: "Bookmark c-2" }).click();
  await page.getByRole("heading", { name: "No such connection" }).waitFor();
  expect(errors).toEqual([]);
  await context.close();
});
