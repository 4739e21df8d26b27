/** The whole result as a file, streamed from the server to the disk where the browser can, else through memory. */
import { request } from "../../../api/client";
import { asProblem } from "../../../api/problem";
import { toast, toastProblem } from "../../../shared/toast";
import { type ExploreState, questionOf } from "../state";

export type ExportFormat = "ndjson" | "csv";

/** What may be held in memory where no file can be written piece by piece. */
const MEMORY_BYTES_MAX = 512 * 1024 * 1024;

interface FilePicker {
  showSaveFilePicker?: (options: {
    suggestedName: string;
  }) => Promise<{ createWritable(): Promise<WritableStream<Uint8Array>> }>;
}

export async function exportAll(state: ExploreState, format: ExportFormat): Promise<void> {
  const query = questionOf(state);
  query.set("format", format);
  const name = `logs-${new Date().toISOString().slice(0, 19).replaceAll(":", "")}.${format}`;
  try {
    const pick = (window as unknown as FilePicker).showSaveFilePicker;
    // First of all: a browser lets a page ask only right after a click.
    const file = pick === undefined ? null : await pick.call(window, { suggestedName: name });
    const response = await request(`/api/v1/export?${query}`);
    if (response.body === null) return;
    if (file !== null) await response.body.pipeTo(await file.createWritable());
    else save(name, await inMemory(response.body));
    toast(`Exported ${name}`);
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") return;
    if (asProblem(error).slug === "no-such-path")
      toast("This server does not export over HTTP: use `logfeed export`", "error");
    else toastProblem(error);
  }
}

async function inMemory(body: ReadableStream<Uint8Array>): Promise<Blob> {
  const parts: Uint8Array<ArrayBuffer>[] = [];
  let bytes = 0;
  const reader = body.getReader();
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return new Blob(parts);
    bytes += value.byteLength;
    if (bytes > MEMORY_BYTES_MAX) {
      await reader.cancel();
      throw new Error("more than this browser can hold: use `logfeed export`, or a shorter time");
    }
    parts.push(value as Uint8Array<ArrayBuffer>);
  }
}

function save(name: string, blob: Blob): void {
  const url = URL.createObjectURL(blob);
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}
