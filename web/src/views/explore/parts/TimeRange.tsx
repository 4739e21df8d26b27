import { type FormEvent, useState } from "react";
import { useZone } from "../../../app/theme";
import { parseTime, shownMoment } from "../../../logs/times";
import { Button } from "../../../shared/Button";
import { ALL_TIME } from "../state";
import { Popover } from "./Popover";

const PRESETS: [string, string][] = [
  ["-5m", "5 minutes"],
  ["-15m", "15 minutes"],
  ["-1h", "hour"],
  ["-6h", "6 hours"],
  ["-24h", "24 hours"],
  ["-7d", "7 days"],
  ["-30d", "30 days"],
];

export function rangeName(from: string, to: string, zone: "local" | "UTC"): string {
  if (to !== "")
    return `${from === ALL_TIME || from === "" ? "…" : shownMoment(from, zone)} – ${shownMoment(to, zone)}`;
  if (from === ALL_TIME || from === "") return "All time";
  const preset = PRESETS.find(([text]) => text === from);
  if (preset !== undefined) return `Last ${preset[1]}`;
  return from.startsWith("-") ? `Last ${from.slice(1)}` : `Since ${shownMoment(from, zone)}`;
}

/** Presets, or two times as people write them. */
export function TimeRange({
  from,
  to,
  onRange,
  isOpen,
  onOpen,
}: {
  from: string;
  to: string;
  onRange: (from: string, to: string) => void;
  isOpen: boolean;
  onOpen: (isOpen: boolean) => void;
}) {
  const zone = useZone();
  const name = rangeName(from, to, zone);
  return (
    <Popover label={`Time range: ${name}`} button={name} isOpen={isOpen} onOpen={onOpen} align="end">
      <div className="presets">
        {[...PRESETS, [ALL_TIME, "All time"] as const].map(([text, label]) => (
          <Button
            key={text}
            kind="quiet"
            aria-pressed={to === "" && from === text}
            onClick={() => {
              onRange(text, "");
              onOpen(false);
            }}
          >
            {text === ALL_TIME ? label : `Last ${label}`}
          </Button>
        ))}
      </div>
      <TwoTimes
        from={from}
        to={to}
        onRange={(first, last) => {
          onRange(first, last);
          onOpen(false);
        }}
      />
    </Popover>
  );
}

function TwoTimes({ from, to, onRange }: { from: string; to: string; onRange: (from: string, to: string) => void }) {
  const zone = useZone();
  const [first, setFirst] = useState(from === ALL_TIME ? "" : shownMoment(from, zone));
  const [last, setLast] = useState(shownMoment(to, zone));
  const [problem, setProblem] = useState("");
  const submit = (event: FormEvent) => {
    event.preventDefault();
    const now = Date.now();
    const begin = parseTime(first, now, zone);
    const end = parseTime(last, now, zone);
    if (!begin.ok) setProblem(`From is ${begin.problem}`);
    else if (!end.ok) setProblem(`To is ${end.problem}`);
    else onRange(begin.text === "" ? ALL_TIME : begin.text, end.text === "now" ? "" : end.text);
  };
  return (
    <form className="two-times" onSubmit={submit}>
      <label className="field">
        From
        <input
          className="input mono"
          value={first}
          placeholder="-15m, yesterday 17:30"
          // biome-ignore lint/a11y/noAutofocus: the panel was opened to write here
          autoFocus
          onChange={(event) => setFirst(event.target.value)}
        />
      </label>
      <label className="field">
        To
        <input
          className="input mono"
          value={last}
          placeholder="now"
          onChange={(event) => setLast(event.target.value)}
        />
      </label>
      <p className="muted two-times-hint">
        -15m, 17:30, monday 9:00, yesterday 17:30, 2026-01-31 12:00. Times are {zone === "UTC" ? "UTC" : "local"}.
      </p>
      <p className="login-problem" role="alert">
        {problem}
      </p>
      <Button type="submit" kind="primary">
        Apply
      </Button>
    </form>
  );
}
