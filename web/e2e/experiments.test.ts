import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, expect, inject, test } from "vitest";
import { ask, assertSound, launch, login, open, PHONE, type Scheme, send } from "./browser";
import { until } from "./site";

const LOGS = 3_000;
const NOW = Date.now();
let browser: Browser;

async function put(id: string, change: Record<string, unknown>): Promise<void> {
  const answer = await fetch(`${inject("site").url}/api/v1/experiments/${id}`, {
    method: "PUT",
    headers: { Authorization: `Bearer ${inject("site").ingestKey}`, "Content-Type": "application/json" },
    body: JSON.stringify({ service_name: "training", ...change }),
  });
  expect(answer.status, await answer.text()).toBeLessThan(300);
}

const said = (id: string, message: string, more: { level?: string; agent?: string; timestamp?: string } = {}) => ({
  service_name: "training",
  message,
  ...(more.level === undefined ? {} : { level: more.level }),
  ...(more.timestamp === undefined ? {} : { timestamp: more.timestamp }),
  metadata: { experiment_id: id, agent_id: more.agent ?? "agent-1" },
});

beforeAll(async () => {
  browser = await launch();
  await put("exp-1", { status: "running", name: "learning rate 0.1" });
  await put("exp-2", { status: "completed", name: "learning rate 0.2" });
  await send(
    Array.from({ length: LOGS }, (_, index) =>
      said("exp-1", `step ${index}`, {
        level: index % 20 === 0 ? "error" : "info",
        agent: `agent-${index % 3}`,
        timestamp: new Date(NOW - index * 100).toISOString(),
      }),
    ),
  );
  await until(async () => {
    const { logs } = await ask<{ logs: number }>("/api/v1/experiments/exp-1");
    return logs >= LOGS;
  }, "all logs are stored");
});
afterAll(() => browser.close());

const rows = (page: Page) => page.locator(".experiment-row[data-id]");
const first = (page: Page) => rows(page).first().locator(".experiment-message");

for (const [scheme, size] of [["light"], ["dark", PHONE]] as [Scheme, typeof PHONE | undefined][]) {
  test(`the list and one of them are sound, ${scheme}${size === undefined ? "" : ", on a phone"}`, async () => {
    const opened = await open(browser, size === undefined ? { scheme } : { scheme, size });
    const { page, context } = opened;
    const name = `experiments-${scheme}${size === undefined ? "" : "-phone"}`;
    await login(page, "/experiments");
    await page.getByRole("link", { name: "learning rate 0.1" }).waitFor();
    await assertSound(opened, name);
    await page.getByRole("button", { name: "completed" }).click();
    await page.waitForURL("**/experiments?status=completed");
    await expect.poll(() => page.getByRole("link", { name: /learning rate/ }).count()).toBe(1);
    await page.getByLabel("Find an experiment").fill("nothing like it");
    await page.getByRole("heading", { name: "No such experiment" }).waitFor();
    await assertSound(opened, `${name}-empty`);
    await page.getByRole("button", { name: "Show all" }).click();
    await page.getByRole("link", { name: "learning rate 0.1" }).click();
    await page.waitForURL("**/experiments/exp-1");
    await rows(page).first().waitFor();
    await assertSound(opened, `${name}-one`);
    await rows(page).nth(2).click();
    await page.getByRole("complementary", { name: "Log" }).waitFor();
    await page.waitForURL(/log=\d+/);
    await assertSound(opened, `${name}-log`);
    await page.goBack();
    await page.waitForURL("**/experiments/exp-1");
    await context.close();
  });
}

test("levels, agents and times narrow the logs, in the address too", async () => {
  const { page, context, errors } = await open(browser);
  await login(page, "/experiments/exp-1");
  await rows(page).first().waitFor();
  await page.getByRole("group", { name: "Levels" }).getByRole("button", { name: /ERROR/ }).click();
  await page
    .getByRole("group", { name: "Agents" })
    .getByRole("button", { name: /agent-2/ })
    .click();
  await page.waitForURL(/level=ERROR&agent=agent-2/);
  await expect.poll(() => page.locator('.experiment-row[data-id]:not([data-level="ERROR"])').count()).toBe(0);
  await expect
    .poll(async () => new Set(await page.locator(".experiment-row[data-id] .experiment-agent").allInnerTexts()))
    .toEqual(new Set(["agent-2"]));
  await page.getByLabel("Start").fill("not a time");
  await page.keyboard.press("Enter");
  await page.getByRole("alert").getByText("not a time").waitFor();
  await page.getByLabel("Start").fill("-2m");
  await page.keyboard.press("Enter");
  await page.waitForURL(/from=-2m/);
  await page.reload();
  await page.getByLabel("Start").waitFor();
  expect(await page.getByLabel("Start").inputValue()).toBe("-2m");
  expect(errors).toEqual([]);
  await context.close();
});

test("scrolling leads down to the oldest, each log once", async () => {
  const { page, context } = await open(browser);
  await login(page, "/experiments/exp-1");
  await rows(page).first().waitFor();
  const seen = new Set<string>();
  await until(
    async () => {
      const shown = await page.evaluate(() => {
        const ids = [...document.querySelectorAll<HTMLElement>(".experiment-row[data-id]")].map(
          ({ dataset }) => dataset.id,
        );
        const table = document.querySelector(".table-scroll");
        if (table !== null) table.scrollTop += 700;
        return ids as string[];
      });
      for (const id of shown) seen.add(id);
      return seen.size >= LOGS;
    },
    "all logs were seen",
    60_000,
  );
  await page.getByText(`step ${LOGS - 1}`, { exact: true }).waitFor();
  await context.close();
});

test("new rows and states come by themselves, and whoever scrolled away is not moved", async () => {
  const { page, context, errors } = await open(browser);
  const id = "exp-live";
  await put(id, { status: "queued" });
  await send(Array.from({ length: 200 }, (_, index) => said(id, `before ${index}`)));
  await until(async () => (await ask<{ logs: number }>(`/api/v1/experiments/${id}`)).logs >= 200, "they are stored");
  await login(page, "/experiments");
  await page.getByRole("link", { name: id }).waitFor();
  await put("exp-new", { status: "queued", name: "made meanwhile" });
  await page.getByRole("link", { name: "made meanwhile" }).waitFor();
  await page.getByRole("link", { name: id }).click();
  await rows(page).first().waitFor();
  await page.locator(".experiment-head .badge", { hasText: "queued" }).waitFor();
  await put(id, { status: "running" });
  await page.locator(".experiment-head .badge", { hasText: "running" }).waitFor();
  await send([said(id, "the first to come")]);
  await expect.poll(() => first(page).textContent(), { timeout: 20_000 }).toBe("the first to come");

  await page.evaluate(() => {
    const table = document.querySelector(".table-scroll");
    if (table !== null) table.scrollTop = 1_100;
  });
  await expect.poll(() => page.evaluate(() => document.querySelector(".table-scroll")?.scrollTop)).toBe(1_100);
  const place = () =>
    page.evaluate(() => {
      const at = document.elementFromPoint(500, 500)?.closest<HTMLElement>(".experiment-row");
      return `${at?.dataset.id} at ${at?.getBoundingClientRect().top}`;
    });
  await expect.poll(place).toMatch(/^\d+ at /);
  const before = await place();
  await send([said(id, "came meanwhile")]);
  await page.getByRole("button", { name: "1 new" }).waitFor();
  expect(await place()).toBe(before);
  await page.getByRole("button", { name: "1 new" }).click();
  await expect.poll(() => first(page).textContent()).toBe("came meanwhile");
  await put(id, { status: "errored" });
  await page.locator(".experiment-head .badge", { hasText: "errored" }).waitFor();
  expect(errors).toEqual([]);
  await context.close();
});

test("who may not, waits, or asks for none is told so", async () => {
  const nobody = await open(browser);
  await login(nobody.page, "/experiments", inject("site").nobody);
  await nobody.page.getByText("You lack the permission read").waitFor();
  await assertSound(nobody, "experiments-no-permission");
  await nobody.context.close();
  const narrow = await open(browser);
  await login(narrow.page, "/experiments", inject("site").narrow);
  await narrow.page.getByRole("heading", { name: "No experiment yet" }).waitFor();
  await assertSound(narrow, "experiments-none");
  await narrow.page.goto("/experiments/exp-1");
  await narrow.page.getByRole("heading", { name: "There is no such experiment" }).waitFor();
  await assertSound(narrow, "experiments-unknown");
  await narrow.context.close();

  const opened = await open(browser);
  const { page, context } = opened;
  await login(page, "/status");
  let release = () => {};
  const held = new Promise<void>((resolve) => {
    release = resolve;
  });
  await page.route("**/api/v1/experiments?*", async (route) => {
    await held;
    await route.fulfill({
      status: 500,
      contentType: "application/problem+json",
      body: JSON.stringify({ type: "urn:x:y", title: "A defect", status: 500, detail: "it is ours" }),
    });
  });
  await page.getByRole("link", { name: "Experiments" }).click();
  await page.getByText("Asking for experiments").waitFor();
  await assertSound(opened, "experiments-loading");
  release();
  await page.getByRole("heading", { name: "A defect" }).waitFor();
  await assertSound(opened, "experiments-error");
  await context.close();
});
