import { describe, expect, test } from "vitest";
import { ApiProblem } from "./problem";
import { Session } from "./session";

globalThis.location = { href: "http://logs.test/" } as Location;

const json = (status: number, body: unknown) =>
  new Response(JSON.stringify(body), { status, headers: { "Content-Type": "application/json" } });
const PROBLEM = {
  type: "urn:logfeed:problem:unauthenticated",
  title: "Who you are is not known",
  status: 401,
  detail: "log in",
};

/** The routes of logging in, and one that wants a token; tokens are good until `revoke`. */
class Server {
  session = true;
  good = "";
  made = 0;
  readonly seen: string[] = [];
  hasAccessControl = true;

  readonly send = async (request: Request): Promise<Response> => {
    const path = new URL(request.url).pathname;
    this.seen.push(path.split("/").at(-1) ?? "");
    if (!this.hasAccessControl && path.includes("/auth/")) {
      return json(404, { ...PROBLEM, type: "urn:logfeed:problem:no-such-path", status: 404 });
    }
    const isKnown = request.headers.get("Authorization") === `Bearer ${this.good}` && this.good !== "";
    if (path.endsWith("/refresh")) return this.session ? this.token() : json(401, PROBLEM);
    if (path.endsWith("/login")) {
      const { password } = (await request.json()) as { password: string };
      return password === "right" ? this.token() : json(401, PROBLEM);
    }
    if (path.endsWith("/logout")) return new Response(null, { status: 204 });
    if (!this.hasAccessControl || isKnown) {
      return json(200, { subject: "user:1", name: "ann", permissions: { read: ["*"] } });
    }
    return json(401, PROBLEM);
  };

  revoke() {
    this.good = "";
  }

  private token(): Response {
    this.made += 1;
    this.good = `token-${this.made}`;
    return json(200, { access_token: this.good, token_type: "Bearer", expires_in: 600 });
  }
}

const ask = (session: Session) => session.fetch(new Request("http://logs.test/api/v1/logs"));

describe("a session", () => {
  test("is found again at the start, and knows what may be done", async () => {
    const server = new Server();
    const session = new Session(server.send);
    await session.start();
    expect(session.current()).toMatchObject({ kind: "in", identity: { name: "ann" } });
    expect(session.may("read")).toBe(true);
    expect(session.may("tail")).toBe(false);
  });

  test("that is none says so, and a login makes one", async () => {
    const server = new Server();
    server.session = false;
    const session = new Session(server.send);
    await session.start();
    expect(session.current().kind).toBe("out");
    await expect(session.login("ann", "wrong")).rejects.toBeInstanceOf(ApiProblem);
    expect(session.current().kind).toBe("out");
    await session.login("ann", "right");
    expect(session.current().kind).toBe("in");
  });

  test("whose token ended is renewed once, for all requests that meet it", async () => {
    const server = new Server();
    const session = new Session(server.send);
    await session.start();
    server.revoke();
    server.seen.length = 0;
    const answers = await Promise.all([ask(session), ask(session), ask(session)]);
    expect(answers.map(({ status }) => status)).toEqual([200, 200, 200]);
    expect(server.seen.filter((path) => path === "refresh")).toHaveLength(1);
  });

  test("that ended on the server leads out", async () => {
    const server = new Server();
    const session = new Session(server.send);
    await session.start();
    server.revoke();
    server.session = false;
    expect((await ask(session)).status).toBe(401);
    expect(session.current().kind).toBe("out");
  });

  test("is not needed where access control is off", async () => {
    const server = new Server();
    server.hasAccessControl = false;
    const session = new Session(server.send);
    await session.start();
    expect(session.current().kind).toBe("open");
    expect(session.may("tail")).toBe(true);
    expect((await ask(session)).status).toBe(200);
  });

  test("cannot be told while the server is away", async () => {
    const session = new Session(() => Promise.reject(new TypeError("failed to fetch")));
    await session.start();
    expect(session.current()).toMatchObject({ kind: "away", problem: { status: 0 } });
  });

  test("of a key is known or refused, and ends with logging out", async () => {
    const server = new Server();
    server.session = false;
    const session = new Session(server.send);
    await session.start();
    await expect(session.enterKey("lf_wrong")).rejects.toMatchObject({ status: 401 });
    server.good = "lf_right";
    await session.enterKey("lf_right");
    expect(session.current().kind).toBe("in");
    await session.logout();
    expect(session.current().kind).toBe("out");
    expect((await ask(session)).status).toBe(401);
  });
});
