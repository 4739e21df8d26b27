/** A browser, pages that are logged in, and what is asserted of every page: no errors, no violations, no sideways scroll. */
import { existsSync, mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { type Browser, type BrowserContext, chromium, type Page } from "playwright-core";
import { expect, inject } from "vitest";

const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";
const FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];
const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
/** Where pictures go when somebody wants to look: SHOTS=directory. */
const SHOTS = process.env.SHOTS;

export const DESKTOP = { width: 1280, height: 800 };
export const PHONE = { width: 390, height: 844 };
export type Scheme = "light" | "dark";

export function launch(): Promise<Browser> {
  if (!existsSync(CHROMIUM)) throw new Error(`there is no ${CHROMIUM}: run infra/native/chromium.sh`);
  return chromium.launch({ executablePath: CHROMIUM, args: FLAGS, headless: true });
}

export interface Opened {
  page: Page;
  context: BrowserContext;
  /** Errors of the page's own, and what its policy refused. */
  errors: string[];
}

export async function open(browser: Browser, { size = DESKTOP, scheme = "light" as Scheme } = {}): Promise<Opened> {
  const context = await browser.newContext({
    viewport: size,
    colorScheme: scheme,
    timezoneId: "UTC",
    baseURL: inject("site").url,
    permissions: ["clipboard-read", "clipboard-write"],
    reducedMotion: "reduce",
  });
  const page = await context.newPage();
  page.setDefaultTimeout(30_000);
  const errors: string[] = [];
  page.on("pageerror", (error) => errors.push(String(error)));
  page.on("console", (message) => {
    const isRefusal = /Failed to load resource/.test(message.text());
    if (message.type() === "error" && !isRefusal) errors.push(message.text());
  });
  return { page, context, errors };
}

export async function login(page: Page, path = "/", name = inject("site").user): Promise<void> {
  await page.goto(path);
  await page.getByLabel("Name").fill(name);
  await page.getByLabel("Password").fill(inject("site").password);
  await page.getByRole("button", { name: "Log in", exact: true }).click();
  await page.getByRole("navigation", { name: "Views" }).waitFor();
}

/** Serious and critical violations of accessibility rules. */
export async function violations(page: Page): Promise<string[]> {
  // Through the browser's tools: the page's policy lets no script in.
  await page.evaluate(AXE);
  return page.evaluate(async () => {
    // biome-ignore lint/suspicious/noExplicitAny: axe puts itself there
    const { violations } = await (window as any).axe.run(document, { resultTypes: ["violations"] });
    return violations
      .filter((each: { impact: string }) => each.impact === "serious" || each.impact === "critical")
      .map(
        (each: { id: string; nodes: { html: string }[] }) =>
          `${each.id}: ${each.nodes.map(({ html }) => html.slice(0, 200)).join(" | ")}`,
      );
  });
}

/** What must be true of every page in every state. */
export async function assertSound({ page, errors }: Opened, name: string): Promise<void> {
  if (SHOTS !== undefined) {
    mkdirSync(SHOTS, { recursive: true });
    await page.screenshot({ path: `${SHOTS}/${name}.png` });
  }
  expect(await violations(page), name).toEqual([]);
  const sideways = await page.evaluate(() =>
    Math.max(
      document.documentElement.scrollWidth - window.innerWidth,
      ...[...document.querySelectorAll("#view")].map((view) => view.scrollWidth - view.clientWidth),
    ),
  );
  expect(sideways, `${name}: sideways scroll`).toBeLessThanOrEqual(0);
  expect(errors, name).toEqual([]);
}

interface Sent {
  service_name: string;
  level?: string;
  message: string;
  timestamp?: string;
  correlation_id?: string;
  metadata?: Record<string, unknown>;
}

/** Store logs; their ids. */
export async function send(logs: Sent[]): Promise<string[]> {
  const { url, ingestKey } = inject("site");
  const ids: string[] = [];
  for (let from = 0; from < logs.length; from += 5_000) {
    const answer = await fetch(`${url}/api/v1/logs/batch?return_ids=true`, {
      method: "POST",
      headers: { Authorization: `Bearer ${ingestKey}`, "Content-Type": "application/x-ndjson" },
      body: logs
        .slice(from, from + 5_000)
        .map((log) => JSON.stringify(log))
        .join("\n"),
    });
    expect(answer.status).toBeLessThan(300);
    ids.push(...(((await answer.json()) as { ids?: string[] }).ids ?? []));
  }
  return ids;
}

/** As an admin asks. */
export async function ask<T>(path: string): Promise<T> {
  const { url, adminKey } = inject("site");
  const answer = await fetch(url + path, { headers: { Authorization: `Bearer ${adminKey}` } });
  return (await answer.json()) as T;
}
