import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, expect, inject, test } from "vitest";
import { ask, assertSound, launch, login, open, PHONE, type Scheme, send } from "./browser";
import { until } from "./site";

interface Ledger {
  rows: { service_name: string; received: number; stored: Record<string, number> }[];
}

const SERVICE = `status/checked-${Date.now()}`;
let browser: Browser;
beforeAll(async () => {
  browser = await launch();
  await send(
    Array.from({ length: 300 }, (_, index) => ({
      service_name: SERVICE,
      level: index % 10 === 0 ? "error" : "info",
      message: `said ${index}`,
    })),
  );
  await until(async () => {
    const { rows } = await ask<Ledger>(`/api/v1/ledger?service_name=${SERVICE}&start_time=-1h`);
    return rows.reduce((sum, row) => sum + Object.values(row.stored).reduce((all, each) => all + each, 0), 0) >= 300;
  }, "the ledger has them");
});
afterAll(() => browser.close());

const part = (page: Page, name: string) =>
  page.getByRole("navigation", { name: "Parts of status" }).getByRole("button", { name });

test("each part says how it stands, light and dark, on a desk and a phone", async () => {
  for (const [scheme, size] of [["light"], ["dark", PHONE]] as [Scheme, typeof PHONE | undefined][]) {
    const opened = await open(browser, size === undefined ? { scheme } : { scheme, size });
    const { page, context } = opened;
    const name = `status-${scheme}${size === undefined ? "" : "-phone"}`;
    await login(page, "/status");
    await page.locator(".badge", { hasText: /ready$/ }).waitFor();
    await page.locator(".throughput canvas").waitFor();
    await page.getByRole("region", { name: "By service" }).getByRole("button", { name: SERVICE }).waitFor();
    await assertSound(opened, name);

    await page.getByRole("button", { name: "15 minutes" }).click();
    await page.getByRole("button", { name: SERVICE, exact: true }).click();
    await page.waitForURL(/from=-15m&service=status/);
    await expect.poll(() => page.getByRole("region", { name: "By service" }).locator("tbody tr").count()).toBe(1);
    await page.reload();
    await page.getByRole("button", { name: `Not only ${SERVICE}` }).waitFor();
    await page.getByRole("region", { name: "The ledger" }).getByText("300").waitFor();
    await page.getByText("every log is accounted for").waitFor();

    await part(page, "Services").click();
    await page.getByLabel("Find a service").fill(SERVICE);
    await page.getByRole("link", { name: SERVICE }).waitFor();
    expect(new URL(page.url()).searchParams.get("find")).toBe(SERVICE);
    await assertSound(opened, `${name}-services`);
    await page.getByLabel("Find a service").fill("no such one");
    await page.getByRole("heading", { name: "No such service" }).waitFor();

    await part(page, "Topics").click();
    await page.getByRole("cell", { name: "logs.errors" }).waitFor();
    await assertSound(opened, `${name}-topics`);

    await part(page, "Pipeline").click();
    await page.getByRole("region", { name: "Writers" }).getByText("all is stored").waitFor();
    await page.getByText("evaluates rules").waitFor();
    await page.getByText("No line was put aside.").waitFor();
    await assertSound(opened, `${name}-pipeline`);

    await part(page, "Tiers").click();
    await page.getByText("rows in tables").waitFor();
    await page.getByText("moves rows", { exact: false }).first().waitFor();
    await assertSound(opened, `${name}-tiers`);
    await page.goBack();
    await page.getByRole("region", { name: "Writers" }).waitFor();
    await context.close();
  }
});

test("who may not, waits, finds nothing or meets an error is told so", async () => {
  const narrow = await open(browser);
  await login(narrow.page, "/status?tab=tiers", inject("site").narrow);
  await narrow.page.getByText("You lack the permission admin").waitFor();
  await assertSound(narrow, "status-no-permission");
  await narrow.page.goto("/status?service=never/heard");
  await narrow.page.getByRole("heading", { name: "Nothing came in" }).waitFor();
  await assertSound(narrow, "status-empty");
  await narrow.context.close();

  const opened = await open(browser);
  const { page, context } = opened;
  await login(page, "/status?tab=services");
  let release = () => {};
  const held = new Promise<void>((resolve) => {
    release = resolve;
  });
  await page.route("**/api/v1/ledger?*", async (route) => {
    await held;
    await route.fulfill({
      status: 422,
      contentType: "application/problem+json",
      body: JSON.stringify({
        type: "urn:x:y",
        title: "A parameter is not valid",
        status: 422,
        detail: "too many sums",
      }),
    });
  });
  await part(page, "Throughput").click();
  await page.getByText("Asking how it stands").waitFor();
  await assertSound(opened, "status-loading");
  release();
  await page.getByText("too many sums").waitFor();
  await assertSound(opened, "status-error");
  await context.close();
});
