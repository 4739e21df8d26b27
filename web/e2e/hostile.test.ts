import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, expect, test } from "vitest";
import { ask, launch, login, open, send } from "./browser";
import { until } from "./site";

/** HTML, links that are programs, escape sequences, a formula; and marks that turn the direction of what follows. */
const LINES = [
  '<img src=x onerror="globalThis.isTaken = true"><script>globalThis.isTaken = true</script>',
  "see javascript:globalThis.isTaken=true or [here](javascript:globalThis.isTaken=true)",
  '</span></div><a href="javascript:globalThis.isTaken=true">click</a><style>* { display: none }</style>',
  "\u001b[2J\u001b[31mred \u001b]8;;javascript:alert(1)\u0007link\u001b]8;;\u0007",
  "=cmd|' /C calc'!A0",
  "invoice\u202Egnp.exe \u2066left open \u200Fmark",
];
let browser: Browser;
let ids: string[];

beforeAll(async () => {
  browser = await launch();
  ids = await send(
    LINES.map((message) => ({
      service_name: "hostile",
      message,
      correlation_id: "<b>story</b>",
      metadata: { "<i>key</i>": message, url: "javascript:globalThis.isTaken=true" },
    })),
  );
  await until(async () => {
    const { logs } = await ask<{ logs: unknown[] }>("/api/v1/logs?service_name=hostile");
    return logs.length === LINES.length;
  }, "all lines are stored");
});
afterAll(() => browser.close());

/** What a line could have made of the page. */
const made = (page: Page) =>
  page.evaluate(() => ({
    isTaken: "isTaken" in globalThis,
    elements: document.querySelectorAll("img[src=x], .log b, .log i, .log script, .log a[href^=javascript]").length,
    programs: [...document.querySelectorAll("a")].filter(({ href }) => href.startsWith("javascript:")).length,
  }));

test("a line that wants to be more is text", async () => {
  const { page, context, errors } = await open(browser);
  await login(page, "/?from=all&service=hostile");
  await expect.poll(() => page.locator(".log").count()).toBe(LINES.length);
  const shown = await page.locator(".log .log-message").allTextContents();
  expect(shown.toSorted()).toEqual(LINES.toSorted());
  expect(await made(page)).toEqual({ isTaken: false, elements: 0, programs: 0 });

  // Marks of direction end with their own cell: beside it all stands where it stands in other lines.
  const columns = await page.evaluate(() =>
    [...document.querySelectorAll(".log")].map((row) =>
      [".log-time", ".log-service", ".log-message"].map((cell) =>
        Math.round(row.querySelector(cell)?.getBoundingClientRect().left ?? -1),
      ),
    ),
  );
  expect(new Set(columns.map(String)).size).toBe(1);

  for (const id of ids) {
    await page.locator(`.log[data-id="${id}"]`).click();
    await page.getByText("<i>key</i>").first().waitFor();
    expect(await made(page)).toEqual({ isTaken: false, elements: 0, programs: 0 });
  }
  expect(errors).toEqual([]);
  await context.close();
});
