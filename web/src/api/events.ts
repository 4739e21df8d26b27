/** Server-sent events with credentials, which a browser's EventSource cannot send. Goes on after each cut where it stood. */
import { request } from "./client";
import { type ApiProblem, asProblem } from "./problem";

export interface ServerEvent {
  kind: string;
  id: string | null;
  data: string;
}

/** Of one event: what is longer ends the stream. */
const CHARS_MAX = 1_000_000;
const PAUSE_MS_MIN = 500;
const PAUSE_MS_MAX = 15_000;
/** Answers that come again however often one asks. */
const FINAL = new Set([400, 401, 403, 404, 422]);

/** Cuts a stream of text into events. Comments and fields without meaning are dropped. */
export class EventReader {
  private rest = "";

  /** The events that are whole by now. Raises RangeError for one that does not end. */
  add(text: string): ServerEvent[] {
    // A \r at the end may have its \n in the next piece: it waits there.
    const whole = this.rest + text;
    const held = whole.endsWith("\r") ? "\r" : "";
    const pieces = whole
      .slice(0, whole.length - held.length)
      .replace(/\r\n?/g, "\n")
      .split("\n\n");
    this.rest = (pieces.pop() ?? "") + held;
    if (this.rest.length > CHARS_MAX) throw new RangeError("an event is too long");
    return pieces.map(eventOf).filter((event) => event !== null);
  }
}

function eventOf(block: string): ServerEvent | null {
  const event: ServerEvent = { kind: "message", id: null, data: "" };
  const data: string[] = [];
  for (const line of block.split("\n")) {
    const at = line.indexOf(":");
    const [name, value] = at < 0 ? [line, ""] : [line.slice(0, at), line.slice(at + 1).replace(/^ /, "")];
    if (name === "event") event.kind = value;
    else if (name === "id") event.id = value;
    else if (name === "data") data.push(value);
  }
  if (data.length === 0) return null;
  return { ...event, data: data.join("\n") };
}

export interface EventListener {
  onEvent(event: ServerEvent): void;
  /** A stream began: from now on nothing is missed. */
  onOpen(): void;
  onProblem(problem: ApiProblem, isFinal: boolean): void;
}

/** Answers how to end it. */
export function follow(path: string, listener: EventListener): () => void {
  const controller = new AbortController();
  const { signal } = controller;
  let lastId: string | null = null;
  let pauseMs = PAUSE_MS_MIN;

  const once = async () => {
    const response = await request(path, {
      signal,
      ...(lastId === null ? {} : { headers: { "Last-Event-ID": lastId } }),
    });
    const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader();
    if (reader === undefined) return;
    pauseMs = PAUSE_MS_MIN;
    listener.onOpen();
    const events = new EventReader();
    for (;;) {
      const { value, done } = await reader.read();
      if (done || signal.aborted) return;
      for (const event of events.add(value)) {
        lastId = event.id ?? lastId;
        listener.onEvent(event);
      }
    }
  };
  const forever = async () => {
    while (!signal.aborted) {
      let waitS: number | null = null;
      try {
        await once();
      } catch (error) {
        if (signal.aborted) return;
        const problem = asProblem(error);
        const isFinal = FINAL.has(problem.status);
        // A place that is no longer one: begin anew.
        if (problem.status === 400 && lastId !== null) lastId = null;
        else {
          listener.onProblem(problem, isFinal);
          if (isFinal) return;
        }
        waitS = problem.retryAfterS;
      }
      await pause(waitS === null ? pauseMs : waitS * 1_000, signal);
      pauseMs = Math.min(pauseMs * 2, PAUSE_MS_MAX);
    }
  };
  void forever();
  return () => controller.abort();
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      resolve();
    });
  });
}
