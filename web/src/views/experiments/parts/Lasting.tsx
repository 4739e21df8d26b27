import { useNow } from "../../../shared/now";
import { shownDuration } from "../../../shared/times";
import type { Experiment } from "../queries";

/** How long it ran, or runs. */
export function Lasting({ experiment }: { experiment: Experiment }) {
  const nowMs = useNow();
  if (experiment.started_at === null) return <span className="muted">not started</span>;
  const endMs = experiment.ended_at === null ? nowMs : Date.parse(experiment.ended_at);
  return <span className="nowrap">{shownDuration(Math.max(endMs - Date.parse(experiment.started_at), 0))}</span>;
}
