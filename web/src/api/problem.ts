/** What went wrong with a request, in words for people. The server's problems are documents (RFC 9457). */

export interface FieldProblem {
  field: string;
  message: string;
  /** 1-based place in the value. */
  column?: number | null;
}

export class ApiProblem extends Error {
  /** 0: no answer came. */
  readonly status: number;
  readonly title: string;
  readonly detail: string;
  /** The part of the problem's type that names it: `invalid-parameter`. Empty where the answer was none of ours. */
  readonly slug: string;
  readonly fields: FieldProblem[];
  /** Seconds; null where the server says nothing. */
  readonly retryAfterS: number | null;

  constructor(
    status: number,
    title: string,
    detail: string,
    rest: { slug?: string; fields?: FieldProblem[]; retryAfterS?: number | null } = {},
  ) {
    super(`${title}: ${detail}`);
    this.name = "ApiProblem";
    this.status = status;
    this.title = title;
    this.detail = detail;
    this.slug = rest.slug ?? "";
    this.fields = rest.fields ?? [];
    this.retryAfterS = rest.retryAfterS ?? null;
  }

  /** The same request may work later without anybody changing anything. */
  get isTransient(): boolean {
    return this.status === 0 || this.status === 429 || this.status === 503;
  }
}

/** The problem of an answer that is not ok. Reads its body. */
export async function problemOf(response: Response): Promise<ApiProblem> {
  const retryAfter = Number(response.headers.get("Retry-After") ?? Number.NaN);
  const retryAfterS = Number.isFinite(retryAfter) ? Math.min(Math.max(retryAfter, 0), 60) : null;
  let document: unknown = null;
  try {
    document = await response.json();
  } catch {
    // A proxy's page, or nothing: the status alone tells.
  }
  if (isProblem(document)) {
    return new ApiProblem(response.status, document.title, document.detail, {
      slug: document.type.split(":").at(-1) ?? "",
      fields: document.errors ?? [],
      retryAfterS,
    });
  }
  return new ApiProblem(response.status, "The server cannot answer", `It answered with status ${response.status}.`, {
    retryAfterS,
  });
}

interface ProblemDocument {
  type: string;
  title: string;
  detail: string;
  errors?: FieldProblem[] | null;
}

function isProblem(value: unknown): value is ProblemDocument {
  if (typeof value !== "object" || value === null) return false;
  const { type, title, detail } = value as Record<string, unknown>;
  return typeof type === "string" && typeof title === "string" && typeof detail === "string";
}

/** Any error as a problem. An aborted request is none: look at `signal.aborted` first. */
export function asProblem(error: unknown): ApiProblem {
  if (error instanceof ApiProblem) return error;
  if (error instanceof TypeError) {
    return new ApiProblem(
      0,
      "The server does not answer",
      "The connection failed. It is tried again when you ask again.",
    );
  }
  const detail = error instanceof Error ? error.message : String(error);
  return new ApiProblem(500, "Something went wrong in this page", detail, { slug: "page" });
}
