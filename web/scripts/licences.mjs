/** What is built into the page asks for no more than its text to be kept. What only builds and tests may be MPL, too. */
import { readFileSync } from "node:fs";

const FREE = /^(MIT|ISC|0BSD|BSD-[23]-Clause|Apache-2\.0|CC0-1\.0|Unlicense|BlueOak-1\.0\.0|Python-2\.0)$/;
const FOR_BUILDING = /^(MPL-2\.0|CC-BY-4\.0)$/;
const lock = JSON.parse(readFileSync(new URL("../package-lock.json", import.meta.url), "utf8"));
const problems = [];
for (const [path, { license = "", dev = false, resolved, integrity }] of Object.entries(lock.packages)) {
  if (path === "") continue;
  const name = path.replace(/^.*node_modules\//, "");
  const parts = license.replace(/[()]/g, "").split(/ OR /);
  if (!parts.some((part) => FREE.test(part) || (dev && FOR_BUILDING.test(part))))
    problems.push(`${name}: licence "${license}"`);
  if (resolved !== undefined) problems.push(`${name}: the lock names an address`);
  if (integrity === undefined) problems.push(`${name}: the lock has no hash`);
}
if (problems.length > 0) throw new Error(problems.join("\n"));
