/** Writes docs/images: what README shows. Not a test of the page: that a picture is there, and small, is all it asserts. */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, expect, test } from "vitest";
import { launch, login, open, type Scheme } from "../e2e/browser";
import { ROOT } from "../e2e/site";

const IMAGES = join(ROOT, "docs/images");
const SIZE = { width: 1120, height: 580 };
const BYTES_MAX = 150 * 1024;
let browser: Browser;

beforeAll(async () => {
  mkdirSync(IMAGES, { recursive: true });
  browser = await launch();
});
afterAll(() => browser.close());

async function shoot(page: Page, name: string): Promise<void> {
  // Counts over time and by value are there, and the fonts.
  await page.locator(".histogram .u-over").waitFor();
  await page.locator(".facet-choose .muted").first().waitFor();
  await page.evaluate(() => document.fonts.ready);
  const picture = await page.screenshot({ animations: "disabled" });
  expect(picture.length, name).toBeLessThanOrEqual(BYTES_MAX);
  writeFileSync(join(IMAGES, `${name}.png`), picture);
}

for (const scheme of ["light", "dark"] as Scheme[]) {
  test(`explore, ${scheme}`, async () => {
    const { page, context } = await open(browser, { scheme, size: SIZE });
    // The half hour that sample traffic begins with is stored.
    await login(page, "/?from=-30m&level=ERROR");
    await page.locator(".log").nth(9).waitFor();
    await page.goto("/?from=-30m");
    await page.locator(".log").nth(20).waitFor();
    await shoot(page, `explore-${scheme}`);
    if (scheme === "dark") await details(page);
    await context.close();
  });
}

async function details(page: Page): Promise<void> {
  await page.goto("/?from=-30m&q=level%3E%3Dwarn");
  await page.locator('.log[data-level="ERROR"]').first().click();
  await page.getByRole("region", { name: "Log", exact: true }).waitFor();
  await shoot(page, "details-dark");
}
