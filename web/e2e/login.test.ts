import type { Browser } from "playwright-core";
import { afterAll, beforeAll, expect, inject, test } from "vitest";
import { assertSound, launch, login, open, PHONE } from "./browser";

let browser: Browser;
beforeAll(async () => {
  browser = await launch();
});
afterAll(() => browser.close());

test("whoever is not logged in comes to /login, and from there to the exact place", async () => {
  const opened = await open(browser);
  const { page, context } = opened;
  await page.goto("/?q=level%3Aerror&from=all");
  await page.getByRole("heading", { name: "Log in to Logfeed" }).waitFor();
  await assertSound(opened, "login");
  await page.getByLabel("Name").fill("ann");
  await page.getByLabel("Password").fill("not this one");
  await page.getByRole("button", { name: "Log in", exact: true }).click();
  await page.getByRole("alert").filter({ hasText: /\S/ }).waitFor();
  await assertSound(opened, "login-refused");
  await page.getByLabel("Password").fill(inject("site").password);
  await page.getByRole("button", { name: "Log in", exact: true }).click();
  await page.waitForURL("**/?q=level%3Aerror&from=all");
  expect(await page.getByRole("combobox", { name: "Search" }).inputValue()).toBe("level:error");
  await context.close();
});

test("a reload stays logged in, two tabs at once too, and signing out ends it in all", async () => {
  const { page, context, errors } = await open(browser);
  await login(page, "/status");
  const other = await context.newPage();
  await Promise.all([page.reload(), other.goto("/experiments")]);
  for (const each of [page, other]) await each.getByRole("navigation", { name: "Views" }).waitFor();
  await Promise.all([page.reload(), other.reload()]);
  for (const each of [page, other]) await each.getByRole("navigation", { name: "Views" }).waitFor();
  await page.getByRole("button", { name: "Settings: ann" }).click();
  await page.getByRole("menuitem", { name: "Sign out" }).click();
  await page.waitForURL("**/login?return_to=%2Fstatus");
  await other.reload();
  await other.waitForURL("**/login?return_to=%2Fexperiments");
  expect(errors).toEqual([]);
  await context.close();
});

test("an access token that ended is renewed without a word", async () => {
  const { page, context } = await open(browser);
  await login(page);
  let refused = 0;
  await page.route("**/api/v1/services", async (route) => {
    if (refused > 0) return route.continue();
    refused += 1;
    return route.fulfill({ status: 401, contentType: "application/problem+json", body: "{}" });
  });
  await page.goto("/?from=all");
  await page.getByRole("button", { name: /^Services/ }).waitFor();
  await expect.poll(() => refused).toBe(1);
  expect(new URL(page.url()).pathname).toBe("/");
  await context.close();
});

test("a key opens the page as long as it is open", async () => {
  const { page, context } = await open(browser);
  await page.goto("/login");
  await page.getByRole("button", { name: "Use an API key instead" }).click();
  await page.getByLabel("API key").fill(inject("site").adminKey);
  await page.getByRole("button", { name: "Log in", exact: true }).click();
  await page.getByRole("navigation", { name: "Views" }).waitFor();
  await page.reload();
  await page.getByRole("heading", { name: "Log in to Logfeed" }).waitFor();
  await context.close();
});

test("who lacks a permission is told which", async () => {
  const opened = await open(browser);
  await login(opened.page, "/", inject("site").nobody);
  await opened.page.getByText("You lack the permission read").waitFor();
  await assertSound(opened, "no-permission");
  await opened.context.close();
});

test("the theme is chosen in the menu, with the keyboard, and kept", async () => {
  const { page, context } = await open(browser);
  await login(page, "/status");
  await page.getByRole("button", { name: "Settings: ann" }).focus();
  await page.keyboard.press("Enter");
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press("Enter");
  expect(await page.evaluate(() => document.documentElement.dataset.theme)).toBe("dark");
  await page.reload();
  await page.getByRole("navigation", { name: "Views" }).waitFor();
  expect(await page.evaluate(() => document.documentElement.dataset.theme)).toBe("dark");
  await context.close();
});

test("on a phone the login fits", async () => {
  const opened = await open(browser, { size: PHONE, scheme: "dark" });
  await opened.page.goto("/login");
  await opened.page.getByRole("heading", { name: "Log in to Logfeed" }).waitFor();
  await assertSound(opened, "login-phone-dark");
  await opened.context.close();
});
