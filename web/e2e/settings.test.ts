import type { Browser, Page } from "playwright-core";
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
    await page.getByRole("button", { name: "Copy: Keys", exact: true }).click();
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
  expect(await may.getByText("nothing", { exact: true }).count()).toBe(6);
  await page.getByText("Whoever administers Logfeed changes it").waitFor();
  expect(await page.getByRole("navigation", { name: "Parts of settings" }).count()).toBe(0);
  await page.getByRole("button", { name: "Sign out" }).click();
  await page.getByRole("button", { name: "Use an API key instead" }).click();
  await page.getByLabel("API key").fill(inject("site").adminKey);
  await page.getByRole("button", { name: "Log in", exact: true }).click();
  await page.getByText("an API key, for as long as this page is open").waitFor();
  await page.getByText(/logfeed keys revoke [a-z0-9]{12}/).waitFor();
  await context.close();
});

const part = (page: Page, name: string) =>
  page.getByRole("navigation", { name: "Parts of settings" }).getByRole("button", { name });

/** Status of a question with this key or token. */
async function statusOf(token: string): Promise<number> {
  const answer = await fetch(`${inject("site").url}/api/v1/auth/me`, { headers: { Authorization: `Bearer ${token}` } });
  return answer.status;
}

for (const [scheme, size] of [["light"], ["dark", PHONE]] as [Scheme, typeof PHONE | undefined][]) {
  const where = `${scheme}${size === undefined ? "" : "-phone"}`;

  test(`a key is made, shown once, used and revoked, ${where}`, async () => {
    const opened = await open(browser, size === undefined ? { scheme } : { scheme, size });
    const { page, context } = opened;
    const name = `page ${where} ${Date.now()}`;
    await login(page, "/settings");
    await part(page, "Keys").click();
    await page.waitForURL("**/settings?tab=keys");
    await page.getByRole("button", { name: "Revoke admin key of" }).waitFor();
    await assertSound(opened, `settings-keys-${where}`);

    await page.getByRole("button", { name: "New key" }).click();
    const dialog = page.getByRole("dialog");
    await dialog.getByLabel("Name").fill(name);
    await dialog.getByRole("button", { name: "Make the key" }).click();
    await dialog.getByText("Name at least one service").waitFor();
    await dialog.getByRole("combobox", { name: "Services" }).fill("shop, pay/*");
    await dialog.getByLabel("read").check();
    await dialog.getByLabel("Expires").selectOption("in 30 days");
    await dialog.getByRole("button", { name: "Other services …" }).click();
    await dialog.getByRole("combobox", { name: "Services 2" }).fill("no!such");
    await assertSound(opened, `settings-new-key-${where}`);
    await dialog.getByRole("button", { name: "Make the key" }).click();
    await dialog.getByText("got 'no!such'").waitFor();
    await dialog.getByRole("button", { name: "Remove services 2" }).click();
    await dialog.getByLabel("Only from").fill("10.0.0.1/8");
    await dialog.getByRole("button", { name: "Make the key" }).click();
    await dialog.getByText("expected a network such as").waitFor();
    await dialog.getByLabel("Only from").fill("");
    await dialog.getByLabel("Logs a second").fill("fast");
    await dialog.getByRole("button", { name: "Make the key" }).click();
    await dialog.getByText("expected a rate such as 5000/s").waitFor();
    await dialog.getByLabel("Logs a second").fill("300/min");
    await dialog.getByLabel("Bytes a second").fill("5MB/s");
    await dialog.getByLabel("After a pause").fill("10s");
    await dialog.getByLabel("Hosts").fill("no!host");
    await dialog.getByRole("button", { name: "Make the key" }).click();
    await dialog.getByText("expected a host's name").waitFor();
    await dialog.getByLabel("Hosts").fill("web-1, db-*");
    await assertSound(opened, `settings-key-rates-${where}`);
    await dialog.getByRole("button", { name: "Make the key" }).click();

    await dialog.getByText("it is shown this once").waitFor();
    const key = (await dialog.locator("code").first().textContent()) ?? "";
    expect(key).toMatch(/^lf_[a-z2-7]{12}_[0-9A-Za-z]{43}$/);
    await dialog.getByRole("button", { name: "Copy" }).click();
    await expect.poll(() => page.evaluate(() => navigator.clipboard.readText())).toBe(key);
    await assertSound(opened, `settings-made-key-${where}`);
    await page.mouse.click(5, 5);
    expect(await dialog.isVisible(), "a click beside it does not lose the key").toBe(true);
    await dialog.getByRole("button", { name: "Done" }).click();
    expect(await page.content()).not.toContain(key);
    expect(await statusOf(key)).toBe(200);

    await page.getByLabel("Find a key").fill(name);
    await page.waitForURL(/find=page/);
    await page.reload();
    const row = page.getByRole("row").filter({ hasText: name });
    await row.getByText("read: pay/*, shop").waitFor();
    await row.getByText("host: db-*, web-1").waitFor();
    await row.getByText("at most 5 logs/s, 5 MB/s, 10 s at once").waitFor();
    await row.getByText(/^in (29|30) ?d/).waitFor();
    await row.getByRole("button", { name: `Revoke ${name}` }).click();
    await dialog.getByText("for good").waitFor();
    await assertSound(opened, `settings-revoke-${where}`);
    await dialog.getByRole("button", { name: "Revoke it" }).click();
    await page.getByRole("heading", { name: "No such key" }).waitFor();
    await assertSound(opened, `settings-no-key-${where}`);
    expect(await statusOf(key)).toBe(401);
    await page.getByRole("button", { name: "Revoked and expired too" }).click();
    await row.getByText("revoked").waitFor();
    await context.close();
  });

  test(`a user is made, changed, disabled and let in again, ${where}`, async () => {
    const opened = await open(browser, size === undefined ? { scheme } : { scheme, size });
    const { page, context } = opened;
    const name = `eve-${where}-${Date.now()}`;
    await login(page, "/settings?tab=users");
    await page.getByRole("cell", { name: "ann (you)" }).waitFor();
    expect(
      await page.getByRole("button", { name: "Disable ann", exact: true }).count(),
      "nobody disables themselves",
    ).toBe(0);
    await assertSound(opened, `settings-users-${where}`);

    await page.getByRole("button", { name: "New user" }).click();
    const dialog = page.getByRole("dialog");
    await dialog.getByLabel("Name").fill(name);
    await dialog.getByRole("combobox", { name: "Services" }).fill("other");
    await dialog.getByLabel("New password").fill(inject("site").password);
    await dialog.getByLabel("Once more").fill("another one");
    await dialog.getByRole("button", { name: "Make the user" }).click();
    await dialog.getByText("two different passwords").waitFor();
    await assertSound(opened, `settings-new-user-${where}`);
    await dialog.getByLabel("Once more").fill(inject("site").password);
    await dialog.getByRole("button", { name: "Make the user" }).click();
    await page.getByText(`${name} can log in`).waitFor();
    await page.getByLabel("Find a user").fill(name);
    const row = page.getByRole("row").filter({ hasText: name });
    await row.getByText("tail: other").waitFor();

    await row.getByRole("button", { name: `Permissions of ${name}` }).click();
    expect(await dialog.getByRole("combobox", { name: "Services" }).inputValue()).toBe("other");
    await dialog.getByLabel("tail").uncheck();
    await dialog.getByLabel("Hosts").fill("web-1");
    await dialog.getByRole("button", { name: "Save" }).click();
    await expect.poll(() => row.getByText("tail: other").count()).toBe(0);
    await row.getByText("host: web-1").waitFor();
    await row.getByRole("button", { name: `Permissions of ${name}` }).click();
    expect(await dialog.getByLabel("Hosts").inputValue(), "who changes something else keeps them").toBe("web-1");
    await dialog.getByRole("button", { name: "Cancel" }).click();

    const theirs = await open(browser);
    await login(theirs.page, "/settings?tab=keys", name);
    await theirs.page.getByText("You lack the permission admin").waitFor();
    await assertSound(theirs, `settings-no-permission-${where}`);
    await part(theirs.page, "Session").click();
    await theirs.page.getByRole("button", { name: "Change your password" }).click();
    const own = theirs.page.getByRole("dialog");
    await own.getByLabel("Present password").fill("a wrong password");
    await own.getByLabel("New password").fill("another battery staple");
    await own.getByLabel("Once more").fill("another battery staple");
    await own.getByRole("button", { name: "Change it" }).click();
    await own.getByText("this is not your password").waitFor();
    await assertSound(theirs, `settings-password-${where}`);
    await own.getByLabel("Present password").fill(inject("site").password);
    await own.getByRole("button", { name: "Change it" }).click();
    await theirs.page.getByText("Your password is changed").waitFor();
    await theirs.page.getByRole("region", { name: "Your session" }).getByText(name).waitFor();

    await row.getByRole("button", { name: `Disable ${name}` }).click();
    await dialog.getByRole("button", { name: "Disable" }).click();
    await row.getByText("disabled").waitFor();
    await theirs.page.reload();
    await theirs.page.waitForURL("**/login?**");
    await theirs.context.close();
    await row.getByRole("button", { name: `Let ${name} in again` }).click();
    await row.getByText("good").waitFor();
    await row.getByRole("button", { name: `Password of ${name}` }).click();
    await dialog.getByLabel("New password").fill(inject("site").password);
    await dialog.getByLabel("Once more").fill(inject("site").password);
    await dialog.getByRole("button", { name: "Set it" }).click();
    await page.getByText(`${name} has another password`).waitFor();
    const again = await open(browser);
    await login(again.page, "/settings", name);
    await again.context.close();
    await context.close();
  });
}

test("keys and users are waited for, or an error is told, or that there are none", async () => {
  const opened = await open(browser);
  const { page, context } = opened;
  await login(page, "/settings");
  for (const [name, route] of [
    ["Keys", "keys"],
    ["Users", "users"],
  ] as const) {
    let release = () => {};
    const held = new Promise<void>((resolve) => {
      release = resolve;
    });
    let body: unknown = {
      type: "urn:x:y",
      title: "A parameter is not valid",
      status: 422,
      detail: `too many ${route}`,
    };
    await page.route(`**/api/v1/${route}?*`, async (each) => {
      await held;
      const isProblem = "status" in (body as object);
      await each.fulfill({
        status: isProblem ? 422 : 200,
        contentType: isProblem ? "application/problem+json" : "application/json",
        body: JSON.stringify(body),
      });
    });
    await part(page, name).click();
    await page.getByText(`Asking for ${route}`).waitFor();
    await assertSound(opened, `settings-${route}-loading`);
    release();
    await page.getByText(`too many ${route}`).waitFor();
    await assertSound(opened, `settings-${route}-error`);
    body = { [route]: [], next_cursor: null };
    await page.getByRole("button", { name: "Try again" }).click();
    await page.getByRole("heading", { name: `No ${route.slice(0, -1)} yet` }).waitFor();
    await assertSound(opened, `settings-${route}-empty`);
  }
  await page.goBack();
  await page.waitForURL("**/settings?tab=keys");
  await context.close();
});

test("a dialog is opened, filled in and closed by keys alone, and the focus comes back", async () => {
  const { page, context } = await open(browser);
  await login(page, "/settings?tab=keys");
  const button = page.getByRole("button", { name: "New key" });
  await button.focus();
  await page.keyboard.press("Enter");
  const dialog = page.getByRole("dialog");
  await dialog.getByLabel("Name").focus();
  await page.keyboard.type("by keys");
  await page.keyboard.press("Tab");
  expect(await page.evaluate(() => document.activeElement?.closest("label")?.textContent)).toContain("Services");
  await page.keyboard.type("shop");
  await page.keyboard.press("Tab");
  await page.keyboard.press("Space");
  expect(await dialog.getByLabel("read").isChecked()).toBe(true);
  await page.keyboard.press("Escape");
  await expect.poll(() => dialog.count()).toBe(0);
  expect(await button.evaluate((element) => element === document.activeElement)).toBe(true);
  await context.close();
});
