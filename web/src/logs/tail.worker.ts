/// <reference lib="webworker" />
/** One WebSocket of a tail: received and parsed away from the page. Ends with the worker. */
import { type Batch, Gathering } from "./frames";

declare const self: DedicatedWorkerGlobalScope;

export type ToWorker = { kind: "open"; url: string } | { kind: "taken" };
export type FromWorker =
  | { kind: "open" }
  | { kind: "batch"; batch: Batch }
  | { kind: "closed"; code: number; reason: string };

const tell = (message: FromWorker) => self.postMessage(message);
const gathering = new Gathering((batch) => tell({ kind: "batch", batch }));

self.onmessage = ({ data }: MessageEvent<ToWorker>) => {
  if (data.kind === "taken") {
    gathering.taken();
    return;
  }
  const socket = new WebSocket(data.url);
  socket.onopen = () => tell({ kind: "open" });
  socket.onmessage = (event: MessageEvent<string>) => gathering.add(event.data);
  socket.onclose = ({ code, reason }) => tell({ kind: "closed", code, reason });
};
