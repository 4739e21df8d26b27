import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, expect, inject, test } from "vitest";
import { ask, assertSound, launch, login, open, PHONE, type Scheme, send } from "./browser";
import { until } from "./site";

let browser: Browser;
beforeAll(async () => {
  browser = await launch();
});
afterAll(() => browser.close());

const SERVICE = "alerting/card";
const errors = (count: number) =>
  send(
    Array.from({ length: count }, (_, index) => ({
      service_name: SERVICE,
      level: "error",
      message: `declined ${index}`,
    })),
  );
const stored = (count: number) =>
  until(async () => {
    const { logs } = await ask<{ logs: unknown[] }>(`/api/v1/logs?service_name=${SERVICE}&limit=100`);
    return logs.length >= count;
  }, "the logs are stored");
const part = (page: Page, name: RegExp) =>
  page.getByRole("navigation", { name: "Parts of alerts" }).getByRole("button", { name });

test("a rule is written, tried on the past, saved, fires, is silenced, and goes", async () => {
  await errors(4);
  await stored(4);
  const opened = await open(browser);
  const { page, context } = opened;
  await login(page, "/alerts");
  await page.getByRole("heading", { name: "Nothing fires" }).first().waitFor();
  await page.getByText("There is no rule yet", { exact: false }).waitFor();
  await assertSound(opened, "alerts-empty");

  // By keyboard, as far as typing goes.
  await page.getByRole("button", { name: "New rule" }).focus();
  await page.keyboard.press("Enter");
  await page.waitForURL("**/alerts?edit=%2B");
  await page.getByLabel("Name").fill("card-errors");
  await page.getByLabel("Which logs").fill(`service:${SERVICE} level>=error`);
  await page.getByLabel("At least, logs").fill("3");
  await page.getByLabel("In a window of").fill("10s");
  await page.getByLabel("Looked at every").fill("7s");
  await page.getByRole("button", { name: "Try it" }).click();
  await page.getByRole("alert").getByText("window must be").waitFor();
  await assertSound(opened, "alerts-editor-mistake");
  await page.getByLabel("Looked at every").fill("1s");
  await page.getByLabel("Each by itself").fill("service");
  await page.getByLabel("Summary").fill("cards are declined");
  await page.getByLabel("Tried on").selectOption("-1h");
  await page.getByRole("button", { name: "Try it" }).click();
  await page.getByText(/It would have fired once/).waitFor();
  expect(await page.getByRole("list", { name: "Decisions" }).getByText("fires").count()).toBe(1);
  expect(new URL(page.url()).searchParams.get("since")).toBe("-1h");
  await assertSound(opened, "alerts-editor");

  // The same rule as text, with what the form has no field for.
  await page.getByRole("button", { name: "YAML" }).click();
  const text = page.getByLabel("As it stands in a file of rules");
  const written = await text.inputValue();
  expect(written).toContain("at_least: 3");
  await text.fill(`${written}oops: [`);
  await page.getByRole("button", { name: "Save" }).click();
  await page.getByText("This is no YAML of a rule").waitFor();
  await text.fill(`${written}lateness: 0s\n`);
  await assertSound(opened, "alerts-editor-yaml");
  await page.getByRole("button", { name: "Save" }).click();
  await page.waitForURL("**/alerts?tab=rules&rule=card-errors");
  const rule = page.getByRole("region", { name: "Rule card-errors" });
  await rule.getByText("at least 3 logs in 10s, by service").waitFor();
  await assertSound(opened, "alerts-rules");

  // It fires by itself: nobody reloads.
  await part(page, /^Alerts/).click();
  await until(async () => {
    await errors(4);
    return (await page.getByRole("heading", { name: "1 alert fires" }).count()) > 0;
  }, "the alert is shown");
  await page
    .getByRole("button", { name: /firing.*card-errors/ })
    .first()
    .click();
  await page.waitForURL(/alert=[0-9a-f]+/);
  await page.getByText("cards are declined").waitFor();
  await page.getByRole("list", { name: "Newest logs" }).getByText("declined").first().waitFor();
  await assertSound(opened, "alerts-firing");
  const address = page.url();
  await page.reload();
  await page.getByText("cards are declined").waitFor();
  await page.getByRole("link", { name: "Show the logs" }).click();
  await page.locator(".log").first().waitFor();
  await page.goBack();
  await page.waitForURL(address);

  await page.getByText("cards are declined").waitFor();
  await page.getByRole("button", { name: "Silence …" }).last().click();
  const dialog = page.getByRole("dialog", { name: "Silence alerts" });
  expect(await dialog.getByLabel("Alerts with all of these labels").inputValue()).toBe(
    `rule=card-errors\nservice=${SERVICE}`,
  );
  await assertSound(opened, "alerts-silence");
  await dialog.getByLabel("Why").fill("known");
  await dialog.getByRole("button", { name: "Silence", exact: true }).click();
  await part(page, /^Silences/).click();
  await page.getByText("in force").waitFor();
  await assertSound(opened, "alerts-silences");
  await page.getByRole("button", { name: "End now" }).click();
  await page.locator(".badge", { hasText: "over" }).first().waitFor();

  // It was told, and told that it is over: the second message opens the breaker.
  await part(page, /^Messages/).click();
  await page
    .getByRole("cell", { name: /card-errors/ })
    .first()
    .waitFor();
  await assertSound(opened, "alerts-messages");
  await part(page, /^Breakers/).click();
  await page.getByText("open: messages are held back").waitFor({ timeout: 60_000 });
  await assertSound(opened, "alerts-breakers");
  await page.getByRole("button", { name: "Close it" }).click();
  await page.getByText("closed: messages pass").waitFor();

  await part(page, /^Rules/).click();
  await page
    .getByRole("list", { name: "Rules" })
    .getByRole("button", { name: /card-errors/ })
    .click();
  await page.getByRole("button", { name: "Delete …" }).click();
  await page.getByRole("button", { name: "Delete the rule" }).click();
  await page.getByText("There is no rule yet").waitFor();
  const { rules } = await ask<{ rules: unknown[] }>("/api/v1/alerts/rules");
  expect(rules).toEqual([]);
  await context.close();
});

test("who lacks the permission, waits, or meets an error is told so", async () => {
  const refused = await open(browser);
  await login(refused.page, "/alerts", inject("site").narrow);
  await refused.page.getByText("You lack the permission alert").waitFor();
  await assertSound(refused, "alerts-no-permission");
  await refused.context.close();

  for (const scheme of ["light", "dark"] as Scheme[]) {
    const opened = await open(browser, { scheme });
    const { page, context } = opened;
    await login(page, "/status");
    let release = () => {};
    const held = new Promise<void>((resolve) => {
      release = resolve;
    });
    await page.route("**/api/v1/alerts/rules", async (route) => {
      await held;
      await route.fulfill({
        status: 500,
        contentType: "application/problem+json",
        body: JSON.stringify({ type: "urn:x:y", title: "A defect", status: 500, detail: "it is ours" }),
      });
    });
    await page.getByRole("link", { name: "Alerts" }).click();
    await page.getByText("Asking for rules").waitFor();
    await assertSound(opened, `alerts-loading-${scheme}`);
    release();
    await page.getByRole("heading", { name: "A defect" }).waitFor();
    await assertSound(opened, `alerts-error-${scheme}`);
    await page.unroute("**/api/v1/alerts/rules");
    await page.getByRole("button", { name: "Try again" }).click();
    await page.getByRole("button", { name: "New rule" }).waitFor();
    await context.close();
  }
});

test("on a phone and in the dark each part fits", async () => {
  const name = "phone-rule";
  const made = await fetch(`${inject("site").url}/api/v1/alerts/rules`, {
    method: "POST",
    headers: { Authorization: `Bearer ${inject("site").adminKey}`, "Content-Type": "application/json" },
    body: JSON.stringify({
      name,
      query: `service:${SERVICE} level>=error`,
      window: "1h",
      lateness: "0s",
      every: "15s",
      condition: { count: { at_least: 2 } },
      group_by: ["service", "request.headers.user_agent"],
    }),
  });
  expect(made.status).toBe(201);
  await until(
    async () => {
      await errors(2);
      const { alerts } = await ask<{ alerts: unknown[] }>(`/api/v1/alerts?rule=${name}&state=firing`);
      return alerts.length > 0;
    },
    "the rule fires",
    60_000,
  );
  const opened = await open(browser, { size: PHONE, scheme: "dark" });
  const { page, context } = opened;
  await login(page, "/alerts");
  await page.getByRole("button", { name: /firing.*phone-rule/ }).click();
  await page.getByRole("link", { name: "Show the logs" }).waitFor();
  await assertSound(opened, "alerts-phone");
  await part(page, /^Rules/).click();
  await assertSound(opened, "alerts-phone-rules");
  await page.getByRole("list", { name: "Rules" }).getByRole("button", { name }).click();
  await page.getByRole("region", { name: `Rule ${name}` }).waitFor();
  await assertSound(opened, "alerts-phone-rule");
  await page.getByRole("button", { name: "Change or try" }).click();
  await page.getByRole("button", { name: "Try it" }).click();
  await page.getByText(/It would have fired/).waitFor();
  await assertSound(opened, "alerts-phone-editor");
  await page.getByRole("button", { name: "Cancel" }).click();
  for (const tab of [/^Silences/, /^Breakers/, /^Messages/]) {
    await part(page, tab).click();
    await assertSound(opened, `alerts-phone-${tab.source.slice(1).toLowerCase()}`);
  }
  const gone = await fetch(`${inject("site").url}/api/v1/alerts/rules/${name}`, {
    method: "DELETE",
    headers: { Authorization: `Bearer ${inject("site").adminKey}` },
  });
  expect(gone.status).toBe(204);
  await context.close();
});
