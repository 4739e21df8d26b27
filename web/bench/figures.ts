/** What was measured, against what was promised; written as JSON for machines and as a table for people. */
import { mkdirSync, writeFileSync } from "node:fs";
import { cpus } from "node:os";
import { join } from "node:path";
import { ROOT } from "../e2e/site";

const SHOWN_MAX = 10;

export interface Figure {
  what: string;
  unit: string;
  /** At most so much. */
  budget: number;
  /** The median of the runs, or what else is asked of them. */
  value: number;
  runs: number[];
}

export function quantile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN;
}

export const median = (values: readonly number[]): number => quantile(values, 0.5);
export const largest = (values: readonly number[]): number => Math.max(...values);

export class Figures {
  private readonly figures: Figure[] = [];

  /** A figure of some runs. of: what of them counts. */
  add(what: string, unit: string, budget: number, runs: number[], of = median): void {
    const value = of(runs);
    this.figures.push({ what, unit, budget, value, runs });
    console.log(`${what}: ${shown(value)} ${unit} (at most ${budget})`);
  }

  /** Into `bench/results`; the table. */
  write(facts: Record<string, string | number>): string {
    const directory = join(ROOT, "bench/results");
    mkdirSync(directory, { recursive: true });
    const about = { at: new Date().toISOString(), cores: cpus().length, cpu: cpus()[0]?.model ?? "", ...facts };
    writeFileSync(join(directory, "page.json"), `${JSON.stringify({ about, figures: this.figures }, null, 2)}\n`);
    const lines = this.figures.map(({ what, unit, budget, value, runs }) => {
      const verdict = value <= budget ? "" : " **missed**";
      return `| ${what} | ${budget} ${unit} | ${shown(value)}${verdict} | ${spread(runs)} |`;
    });
    const table = ["| what | budget | figure | runs |", "|---|---|---|---|", ...lines, ""].join("\n");
    writeFileSync(join(directory, "page.md"), table);
    return table;
  }
}

function spread(runs: readonly number[]): string {
  if (runs.length <= SHOWN_MAX) return runs.map(shown).join(", ");
  return `${runs.length} from ${shown(Math.min(...runs))} to ${shown(largest(runs))}`;
}

function shown(value: number): string {
  return value >= 100 || Number.isInteger(value) ? value.toFixed(0) : value.toFixed(1);
}
