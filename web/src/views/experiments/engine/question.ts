/** The question to `/api/v1/logs` that has an experiment's logs: the same as its own route, and a tail takes it too. */

export interface Filters {
  level: readonly string[];
  agent: readonly string[];
  from: string;
  to: string;
}

export function questionOf(id: string, { level, agent, from, to }: Filters): URLSearchParams {
  const asked = new URLSearchParams({ "metadata.experiment_id": id });
  for (const each of level) asked.append("level", each);
  if (agent.length > 0) asked.set("query", agent.map((each) => `metadata.agent_id:${quoted(each)}`).join(" OR "));
  if (from !== "") asked.set("start_time", from);
  if (to !== "") asked.set("end_time", to);
  return asked;
}

function quoted(value: string): string {
  return `"${value.replace(/(["\\])/g, "\\$1")}"`;
}
