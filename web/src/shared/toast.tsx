/** Short messages about what was done, or could not be: `toast("Copied")`. The oldest of more than three goes. */
import { useSyncExternalStore } from "react";
import { asProblem } from "../api/problem";
import { Button } from "./Button";

interface Message {
  id: number;
  text: string;
  kind: "note" | "error";
}

const SHOWN_MAX = 3;
const NOTE_MS = 4_000;
let messages: Message[] = [];
let lastId = 0;
const listeners = new Set<() => void>();

function replace(next: Message[]): void {
  messages = next;
  for (const listener of listeners) listener();
}

function dismiss(id: number): void {
  replace(messages.filter((each) => each.id !== id));
}

export function toast(text: string, kind: Message["kind"] = "note"): void {
  lastId += 1;
  const id = lastId;
  replace([...messages, { id, text, kind }].slice(-SHOWN_MAX));
  if (kind === "note") setTimeout(() => dismiss(id), NOTE_MS);
}

/** Say that something failed. Stays until it is closed. */
export function toastProblem(error: unknown): void {
  const problem = asProblem(error);
  toast(`${problem.title}: ${problem.detail}`, "error");
}

export async function copy(text: string, what: string): Promise<void> {
  try {
    await navigator.clipboard.writeText(text);
    toast(`Copied ${what}`);
  } catch {
    toast("The browser does not let this page copy", "error");
  }
}

export function Toasts() {
  const shown = useSyncExternalStore(
    (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    () => messages,
  );
  return (
    <div className="toasts" role="status" aria-live="polite">
      {shown.map(({ id, text, kind }) => (
        <div className="toast" data-kind={kind} key={id}>
          {text}
          <Button kind="quiet" aria-label="Dismiss" onClick={() => dismiss(id)}>
            ✕
          </Button>
        </div>
      ))}
    </div>
  );
}
