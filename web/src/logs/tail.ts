/**
 * A tail that goes on: connects with a ticket, and after each cut again where it stood, so that nothing is missed and nothing
 * comes twice. Ends when the server says that it may not be (403), or that its token is none (400).
 */
import { request } from "../api/client";
import { type ApiProblem, asProblem } from "../api/problem";
import { session } from "../api/session";
import type { Batch } from "./frames";
import type { FromWorker, ToWorker } from "./tail.worker";

export type TailState =
  | { kind: "connecting" }
  | { kind: "live" }
  | { kind: "waiting"; reason: string }
  | { kind: "ended"; problem: ApiProblem };

export interface TailListener {
  onBatch(batch: Batch): void;
  onState(state: TailState): void;
}

const PAUSE_MS_MIN = 500;
const PAUSE_MS_MAX = 15_000;
/** Answers that come again however often one asks. */
const FINAL = new Set([400, 403, 404, 422]);

export class Tail {
  private worker: Worker | null = null;
  private timer: ReturnType<typeof setTimeout> | null = null;
  private pauseMs = PAUSE_MS_MIN;
  private isEnded = false;
  private readonly question: URLSearchParams;
  private token: string;
  private readonly listener: TailListener;

  /** question: the page's, without end, order, limit and cursor. token: `tail` of a page, or `now`. */
  constructor(question: URLSearchParams, token: string, listener: TailListener) {
    this.question = question;
    this.token = token;
    this.listener = listener;
    void this.connect();
  }

  end(): void {
    this.isEnded = true;
    if (this.timer !== null) clearTimeout(this.timer);
    this.worker?.terminate();
    this.worker = null;
  }

  private async connect(): Promise<void> {
    this.listener.onState({ kind: "connecting" });
    try {
      await session.freshen();
      const answer = await request("/api/v1/tail/tickets", { method: "POST" });
      const { ticket } = (await answer.json()) as { ticket: string };
      if (!this.isEnded) this.open(ticket);
    } catch (error) {
      const problem = asProblem(error);
      if (this.isEnded) return;
      if (FINAL.has(problem.status) || problem.status === 401) this.finish(problem);
      else this.again(problem.detail, problem.retryAfterS);
    }
  }

  private open(ticket: string): void {
    const url = new URL("/api/v1/tail", window.location.href);
    url.protocol = url.protocol.replace("http", "ws");
    url.search = this.question.toString();
    url.searchParams.set("from", this.token);
    url.searchParams.set("ticket", ticket);
    const worker = new Worker(new URL("./tail.worker.ts", import.meta.url), { type: "module", name: "tail" });
    const tell = (message: ToWorker) => worker.postMessage(message);
    this.worker = worker;
    let wasOpen = false;
    worker.onmessage = ({ data }: MessageEvent<FromWorker>) => {
      if (this.worker !== worker) return;
      if (data.kind === "open") {
        wasOpen = true;
        this.pauseMs = PAUSE_MS_MIN;
        this.listener.onState({ kind: "live" });
      } else if (data.kind === "batch") {
        this.token = data.batch.token ?? this.token;
        this.listener.onBatch(data.batch);
        tell({ kind: "taken" });
      } else {
        worker.terminate();
        this.worker = null;
        if (wasOpen) this.again(data.reason || "the connection was cut", null);
        else void this.refused();
      }
    };
    tell({ kind: "open", url: url.href });
  }

  /** A browser does not say why a WebSocket was refused; the same question without one does. */
  private async refused(): Promise<void> {
    const asked = new AbortController();
    const query = new URLSearchParams(this.question);
    query.set("from", this.token);
    try {
      await request(`/api/v1/tail?${query}`, { signal: asked.signal });
      asked.abort();
      this.again("the connection could not be opened", null);
    } catch (error) {
      const problem = asProblem(error);
      if (FINAL.has(problem.status)) this.finish(problem);
      else this.again(problem.detail, problem.retryAfterS);
    }
  }

  private finish(problem: ApiProblem): void {
    if (this.isEnded) return;
    this.end();
    this.listener.onState({ kind: "ended", problem });
  }

  private again(reason: string, retryAfterS: number | null): void {
    if (this.isEnded) return;
    this.listener.onState({ kind: "waiting", reason });
    const pauseMs = retryAfterS === null ? this.pauseMs : retryAfterS * 1000;
    this.pauseMs = Math.min(this.pauseMs * 2, PAUSE_MS_MAX);
    this.timer = setTimeout(() => void this.connect(), pauseMs);
  }
}
