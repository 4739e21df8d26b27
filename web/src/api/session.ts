/**
 * Who is logged in. The access token lives in this module's memory alone, the refresh token in a cookie that no script sees.
 *
 * A refresh token is good once: one that comes a second time ends the session. So all tabs of a browser refresh one at a
 * time, under a lock that they share, and a refresh outlives the page that began it (`keepalive`). A request that is
 * answered 401 refreshes once and is sent once more; if that is refused too, nobody is logged in.
 *
 * Where access control is switched off there is nothing to log in to, and every request goes as it is. An API key can take
 * a session's place for the life of the page.
 */
import { ApiProblem, asProblem, problemOf } from "./problem";
import type { components } from "./schema";

export type Identity = components["schemas"]["Identity"];
export type Permission = "read" | "tail" | "export" | "alert" | "admin" | "write" | "host";

export type SessionState =
  | { kind: "starting" }
  /** Nobody is logged in. */
  | { kind: "out" }
  | { kind: "in"; identity: Identity }
  /** Access control is switched off: everybody may everything. */
  | { kind: "open" }
  /** Who is logged in cannot be told now. */
  | { kind: "away"; problem: ApiProblem };

type Fetch = (request: Request) => Promise<Response>;

const AUTH = "/api/v1/auth";
const LOCK = "logfeed-refresh";
/** A token that is good for less is renewed before a tail begins with it. */
const FRESH_S = 60;

export class Session {
  private token: string | null = null;
  private goodUntilMs = 0;
  private isKey = false;
  private refreshing: Promise<boolean> | null = null;
  private state: SessionState = { kind: "starting" };
  private readonly listeners = new Set<() => void>();
  private readonly send: Fetch;

  constructor(send: Fetch = (request) => fetch(request)) {
    this.send = send;
  }

  readonly subscribe = (listener: () => void): (() => void) => {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  };

  readonly current = (): SessionState => this.state;

  /** Find out who is logged in. Harmless to repeat. */
  async start(): Promise<void> {
    this.become({ kind: "starting" });
    await this.settle(async () => {
      if (!(await this.refresh())) this.become({ kind: "out" });
      else await this.identify();
    });
  }

  /** Raises ApiProblem: wrong name or password, too many attempts, no answer. */
  async login(name: string, password: string): Promise<void> {
    const body = JSON.stringify({ name, password });
    await this.take(await this.ask("POST", "/login", { body, headers: { "Content-Type": "application/json" } }));
    await this.identify();
  }

  /** Use an API key as long as this page is open. Raises ApiProblem when it is not known. */
  async enterKey(key: string): Promise<void> {
    this.token = key;
    this.isKey = true;
    try {
      await this.identify();
    } catch (error) {
      this.forget();
      throw error;
    }
  }

  /** End the session here and on the server. */
  async logout(): Promise<void> {
    const hadSession = !this.isKey;
    this.forget();
    if (hadSession) await this.ask("POST", "/logout").catch(() => undefined);
    this.become({ kind: "out" });
  }

  /** A request with credentials. 401 refreshes once; refused again, nobody is logged in. Answers whatever came. */
  async fetch(request: Request): Promise<Response> {
    const again = request.clone();
    const used = this.token;
    const first = await this.send(this.signed(request));
    if (first.status !== 401 || this.state.kind === "open") return first;
    const isRenewed = this.token !== used || (!this.isKey && (await this.refresh()));
    const response = isRenewed ? await this.send(this.signed(again)) : first;
    if (response.status === 401) {
      this.forget();
      this.become({ kind: "out" });
    }
    return response;
  }

  /** Renew a token that is about to end: what is opened with it lives no longer. */
  async freshen(): Promise<void> {
    if (this.token !== null && !this.isKey && this.goodUntilMs - Date.now() < FRESH_S * 1000) await this.refresh();
  }

  /** Whether a permission is held for any service at all. */
  may(permission: Permission): boolean {
    if (this.state.kind === "open") return true;
    return this.state.kind === "in" && (this.state.identity.permissions[permission] ?? []).length > 0;
  }

  private signed(request: Request): Request {
    if (this.token !== null) request.headers.set("Authorization", `Bearer ${this.token}`);
    return request;
  }

  private async identify(): Promise<void> {
    const response = await this.ask("GET", "/me");
    this.become({ kind: "in", identity: (await response.json()) as Identity });
  }

  /** Whether there is a session, whose next token is taken then. One request for all who ask meanwhile. */
  private refresh(): Promise<boolean> {
    this.refreshing ??= this.refreshAlone().finally(() => {
      this.refreshing = null;
    });
    return this.refreshing;
  }

  private async refreshAlone(): Promise<boolean> {
    const renew = async () => {
      try {
        await this.take(await this.ask("POST", "/refresh", { keepalive: true }));
        return true;
      } catch (error) {
        if (error instanceof ApiProblem && error.status === 401) return false;
        throw error;
      }
    };
    // Only where the page's origin is trustworthy; elsewhere the browser keeps no such cookie either.
    const locks = globalThis.navigator?.locks;
    return locks === undefined ? renew() : locks.request(LOCK, renew);
  }

  private async take(response: Response): Promise<void> {
    const answer = (await response.json()) as components["schemas"]["TokenAnswer"];
    this.token = answer.access_token;
    this.goodUntilMs = Date.now() + answer.expires_in * 1000;
    this.isKey = false;
  }

  /** A request to the routes of logging in. Raises ApiProblem. */
  private async ask(method: string, path: string, init: RequestInit = {}): Promise<Response> {
    const request = new Request(new URL(AUTH + path, globalThis.location?.href), { method, ...init });
    let response: Response;
    try {
      response = await this.send(this.signed(request));
    } catch (error) {
      throw asProblem(error);
    }
    if (!response.ok) throw await problemOf(response);
    return response;
  }

  private async settle(work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      const problem = asProblem(error);
      this.become(problem.status === 404 ? { kind: "open" } : { kind: "away", problem });
    }
  }

  private forget(): void {
    this.token = null;
    this.isKey = false;
    this.goodUntilMs = 0;
  }

  private become(state: SessionState): void {
    this.state = state;
    for (const listener of this.listeners) listener();
  }
}

/** The page's one session. */
export const session = new Session();
