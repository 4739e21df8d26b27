import type { Browser } from "playwright-core";
import { afterAll, beforeAll, expect, inject, test } from "vitest";
import { assertSound, launch, login, open, PHONE, type Scheme } from "./browser";

let browser: Browser;
beforeAll(async () => {
  browser = await launch();
});
afterAll(() => browser.close());

for (const [scheme, size] of [["light"], ["dark", PHONE]] as [Scheme, typeof PHONE | undefined][]) {
  test(`the menu leads to the session and what it may, ${scheme}`, async () => {
    const opened = await open(browser, size === undefined ? { scheme } : { scheme, size });
    const { page, context } = opened;
    await login(page, "/status");
    await page.getByRole("button", { name: "Settings: ann" }).click();
    await page.getByRole("menuitem", { name: "Session and permissions" }).click();
    await page.waitForURL("**/settings");
    await page.getByRole("region", { name: "What you may" }).getByText("all services").first().waitFor();
    await page.getByText("logfeed users passwd ann").waitFor();
    await assertSound(opened, `settings-${scheme}`);
    await page.getByRole("group", { name: "Colours" }).getByRole("button", { name: "Light" }).click();
    expect(await page.evaluate(() => document.documentElement.dataset.theme)).toBe("light");
    await page.getByRole("button", { name: "Copy: Keys" }).click();
    await expect.poll(() => page.evaluate(() => navigator.clipboard.readText())).toBe("logfeed keys list");
    await page.reload();
    await page.getByRole("region", { name: "Your session" }).getByText("ann", { exact: true }).waitFor();
    await page.getByRole("region", { name: "Your session" }).getByRole("button", { name: "Sign out" }).click();
    await page.waitForURL("**/login?return_to=%2Fsettings");
    await context.close();
  });
}

test("who may little is shown how little, and a key that it is one", async () => {
  const opened = await open(browser);
  const { page, context } = opened;
  await login(page, "/settings", inject("site").narrow);
  const may = page.getByRole("region", { name: "What you may" });
  await may.getByText("other", { exact: true }).waitFor();
  expect(await may.getByText("nothing", { exact: true }).count()).toBe(5);
  await page.getByText("Whoever administers Logfeed runs them.").waitFor();
  await page.getByRole("button", { name: "Sign out" }).click();
  await page.getByRole("button", { name: "Use an API key instead" }).click();
  await page.getByLabel("API key").fill(inject("site").adminKey);
  await page.getByRole("button", { name: "Log in", exact: true }).click();
  await page.getByText("an API key, for as long as this page is open").waitFor();
  await page.getByText(/logfeed keys revoke [a-z0-9]{12}/).waitFor();
  await context.close();
});
