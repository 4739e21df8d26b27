/** One real `logfeed up` for all files, with a user, and logs of known ids; ends with the run. */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestProject } from "vitest/node";

export const ROOT = new URL("../..", import.meta.url).pathname;
/** As a module: the sources beside this file, whichever the environment has installed. */
export const PYTHON = join(ROOT, ".venv/bin/python");
const LOGFEED = ["-m", "cli.main"];
const START_MS = 300_000;

export interface SiteFacts {
  url: string;
  /** Of `logfeed up`. */
  pid: number;
  /** Its data. */
  directory: string;
  adminKey: string;
  ingestKey: string;
  user: string;
  password: string;
  /** May read the service `other` alone, and tail nothing. */
  narrow: string;
  /** May read and tail the service `other` alone. */
  single: string;
  /** May nothing at all. */
  nobody: string;
}

declare module "vitest" {
  export interface ProvidedContext {
    site: SiteFacts;
  }
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  if (address === null || typeof address === "string") throw new Error("no port");
  return address.port;
}

/** The first true answer, within a deadline. */
export async function until<T>(
  condition: () => Promise<T | false | null | undefined>,
  what: string,
  timeoutMs = 30_000,
): Promise<T> {
  const deadline = Date.now() + timeoutMs;
  for (;;) {
    const answer = await condition();
    if (answer) return answer;
    if (Date.now() > deadline) throw new Error(`not within ${timeoutMs / 1000} s: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** The process of a role that `up` runs. */
export function childOf(pid: number, role: string): number {
  for (const entry of readdirSync("/proc")) {
    try {
      const parent = /^PPid:\s+(\d+)$/m.exec(readFileSync(`/proc/${entry}/status`, "utf8"))?.[1];
      const command = readFileSync(`/proc/${entry}/cmdline`, "utf8").split("\0").filter(Boolean);
      if (parent === String(pid) && command.at(-1) === role) return Number(entry);
    } catch {
      // No process, or one that ended meanwhile.
    }
  }
  throw new Error(`there is no ${role}`);
}

export default (project: TestProject) => start(project, "up");

/** Start it, and say where it is; answers what ends it. command: `demo` has sample traffic. */
export async function start(project: TestProject, command: "up" | "demo"): Promise<() => Promise<void>> {
  const directory = mkdtempSync(join(tmpdir(), "logfeed-page-"));
  const port = await freePort();
  const url = `http://127.0.0.1:${port}`;
  const environment = {
    ...process.env,
    LOGFEED_DATA_DIR: directory,
    LOGFEED_ACCESS__PASSWORDS_AT_ONCE: "2",
    LOGFEED_ALERTS__CHANNELS: '{"log": {"type": "topic"}}',
    LOGFEED_ALERTS__DEFAULT_CHANNELS: '["log"]',
    LOGFEED_ALERTS__GROUP_WAIT: "0s",
    LOGFEED_ALERTS__GROUP_INTERVAL: "1s",
    // The second message of a rule finds its breaker open.
    LOGFEED_ALERTS__BREAKER_NOTIFICATIONS_MAX: "1",
  };
  const up: ChildProcess = spawn(PYTHON, [...LOGFEED, command, "--port", String(port), "--data", directory], {
    cwd: ROOT,
    env: environment,
    stdio: ["ignore", "pipe", "pipe"],
  });
  let output = "";
  up.stdout?.on("data", (data) => {
    output += data;
  });
  up.stderr?.on("data", (data) => {
    output += data;
  });
  const ended = new Promise<void>((resolve) => up.on("exit", () => resolve()));
  const stop = async () => {
    up.kill("SIGINT");
    await ended;
    rmSync(directory, { recursive: true, force: true });
  };
  try {
    await until(
      async () => {
        if (up.exitCode !== null) throw new Error(output);
        return output.includes("Ctrl-C stops it");
      },
      `logfeed up is ready\n${output}`,
      START_MS,
    );
    const password = "correct horse battery";
    const user = (name: string, ...grants: string[]) =>
      execFileSync(PYTHON, [...LOGFEED, "users", "create", name, ...grants, "--password-stdin"], {
        cwd: ROOT,
        env: environment,
        input: `${password}\n`,
      });
    user("ann", "--admin", "*");
    user("narrow", "--read", "other");
    user("single", "--read", "other", "--tail", "other");
    user("nobody", "--alert", "none");
    project.provide("site", {
      url,
      pid: up.pid as number,
      directory,
      adminKey: readFileSync(join(directory, "keys/admin"), "utf8").trim(),
      ingestKey: readFileSync(join(directory, "keys/ingest"), "utf8").trim(),
      user: "ann",
      password,
      narrow: "narrow",
      single: "single",
      nobody: "nobody",
    });
  } catch (error) {
    await stop();
    throw error;
  }
  return stop;
}
