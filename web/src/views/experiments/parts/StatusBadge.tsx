import { Badge, type Tone } from "../../../shared/Badge";

const TONES: Record<string, Tone> = {
  queued: "plain",
  running: "busy",
  paused: "warn",
  canceled: "plain",
  errored: "bad",
  completed: "good",
};

export function StatusBadge({ status }: { status: string }) {
  return <Badge tone={TONES[status] ?? "plain"}>{status}</Badge>;
}
