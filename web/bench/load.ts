/** Logs from the project's own generator (bench/generator.py), and what is stored, from the database itself. */
import { execFileSync, spawn } from "node:child_process";
import { inject } from "vitest";
import { PYTHON, ROOT } from "../e2e/site";

interface Report {
  accepted_logs: number;
  took_s: number;
}

/** Send varied lines and wait until all are accepted. Raises Error with what the generator said. */
export async function generate(options: Record<string, number>): Promise<Report> {
  const { url, ingestKey } = inject("site");
  const flags = Object.entries(options).flatMap(([name, value]) => [`--${name}`, String(value)]);
  const target = url.replace("http://", `http://${ingestKey}@`);
  const child = spawn(PYTHON, ["-m", "bench.generator", target, ...flags], {
    cwd: ROOT,
    stdio: ["pipe", "pipe", "pipe"],
  });
  let output = "";
  let errors = "";
  child.stdout.on("data", (data) => {
    if (output === "") child.stdin.write("go\n");
    output += data;
  });
  child.stderr.on("data", (data) => {
    errors += data;
  });
  const code = await new Promise((resolve) => child.on("close", resolve));
  if (code !== 0) throw new Error(errors);
  return JSON.parse(output.trim().split("\n").at(-1) as string) as Report;
}

const READ = `
import sys, psycopg
from pathlib import Path
from db.embedded import recorded_url
with psycopg.connect(recorded_url(Path(sys.argv[1]))) as connection:
    for number, in connection.execute(sys.argv[2]):
        print(number)
`;

function numbers(statement: string): string[] {
  const text = execFileSync(PYTHON, ["-c", READ, inject("site").directory, statement], {
    cwd: ROOT,
    maxBuffer: 1 << 30,
    encoding: "utf8",
  });
  return text.split("\n").filter(Boolean);
}

/** How many logs are stored. */
export const storedLogs = (): number => Number(numbers("SELECT count(*) FROM logs")[0]);

/** All stored ids but the audit log's, which takes a right of its own; newest first, as pages have them. */
export const storedIds = (): string[] =>
  numbers("SELECT id FROM logs WHERE service_name <> 'logfeed/audit' ORDER BY timestamp DESC, id DESC");
