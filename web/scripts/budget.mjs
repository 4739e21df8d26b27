/** What the browser loads before the first view is there, compressed: at most 150 KB; plots are in a chunk of their own. */
import { readFileSync } from "node:fs";
import { gzipSync } from "node:zlib";

const BYTES_MAX = 150 * 1024;
const dist = new URL("../dist/", import.meta.url);
const manifest = JSON.parse(readFileSync(new URL(".vite/manifest.json", dist), "utf8"));

/** The chunk, and what it imports at once. */
function chunksOf(name, found = new Set()) {
  if (found.has(name)) return found;
  found.add(name);
  for (const each of manifest[name].imports ?? []) chunksOf(each, found);
  return found;
}

const first = new Set([...chunksOf("index.html"), ...chunksOf("src/views/explore/index.tsx")]);
let bytes = 0;
for (const name of first) bytes += gzipSync(readFileSync(new URL(manifest[name].file, dist)), { level: 9 }).length;
const plots = Object.keys(manifest).filter((name) => /Histogram/.test(name));
console.log(`first JavaScript: ${(bytes / 1024).toFixed(1)} KB of ${BYTES_MAX / 1024} KB (gzip)`);
if (bytes > BYTES_MAX) throw new Error("the first JavaScript is too large");
if (plots.length === 0 || plots.some((name) => first.has(name)))
  throw new Error("plots must be in a chunk of their own");
