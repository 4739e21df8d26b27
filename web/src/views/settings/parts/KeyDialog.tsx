import { useState } from "react";
import { Button } from "../../../shared/Button";
import { Dialog } from "../../../shared/Dialog";
import { copy } from "../../../shared/toast";
import { EMPTY_ROW, permissionsOf, type Row } from "../engine/permissions";
import { burstS, bytesPerS, logsPerS } from "../engine/rates";
import { makeKey, useChange } from "../queries";
import { FormDialog, problemText } from "./FormDialog";
import { HostsField, PermissionRows } from "./PermissionRows";

const DAY_MS = 86_400_000;
const LIFETIMES = [
  ["", "never"],
  ["7", "in a week"],
  ["30", "in 30 days"],
  ["90", "in 90 days"],
  ["365", "in a year"],
  ["day", "on a day …"],
] as const;

const RATES = [
  {
    name: "logs",
    label: "Logs a second",
    example: "5000/s, or none",
    meaning: "Empty: as the settings of ingest say.",
  },
  { name: "bytes", label: "Bytes a second", example: "5MB/s, or none", meaning: "Of bodies, decompressed." },
  {
    name: "burst",
    label: "After a pause",
    example: "10s",
    meaning: "So much of both at once; empty: a second's worth.",
  },
] as const;

/** Makes a key, then shows it: there is no second time. */
export function KeyDialog({ onClose }: { onClose: () => void }) {
  const [name, setName] = useState("");
  const [rows, setRows] = useState<Row[]>([{ ...EMPTY_ROW, names: ["write"] }]);
  const [hosts, setHosts] = useState("");
  const [rates, setRates] = useState({ logs: "", bytes: "", burst: "" });
  const [lifetime, setLifetime] = useState("");
  const [day, setDay] = useState("");
  const [networks, setNetworks] = useState("");
  const [problem, setProblem] = useState("");
  const make = useChange(makeKey);

  if (make.data !== undefined) return <MadeKey name={make.data.name} text={make.data.key} onClose={onClose} />;
  const submit = () => {
    const read = permissionsOf(rows, hosts);
    const [logs, bytes, burst] = [logsPerS(rates.logs), bytesPerS(rates.bytes), burstS(rates.burst)];
    setProblem([read, logs, bytes, burst].flatMap((each) => (each.ok ? [] : [each.problem]))[0] ?? "");
    if (!read.ok || !logs.ok || !bytes.ok || !burst.ok) return;
    make.mutate({
      name: name.trim(),
      permissions: read.permissions,
      expires_at: expiry(lifetime, day),
      networks: networks.split(/[\s,]+/).filter((each) => each !== ""),
      logs_per_s: logs.value,
      bytes_per_s: bytes.value,
      burst_s: burst.value,
    });
  };
  return (
    <FormDialog
      title="New key"
      action="Make the key"
      problem={problemText(problem, make.error)}
      isBusy={make.isPending}
      onSubmit={submit}
      onClose={onClose}
    >
      <label className="field">
        Name
        <input
          className="input"
          required
          maxLength={100}
          value={name}
          placeholder="who has it: shop-production"
          autoComplete="off"
          onChange={(event) => setName(event.target.value)}
        />
      </label>
      <PermissionRows rows={rows} onRows={setRows} />
      <div className="form-grid">
        <HostsField hosts={hosts} onHosts={setHosts} />
        <label className="field">
          Expires
          <select className="input" value={lifetime} onChange={(event) => setLifetime(event.target.value)}>
            {LIFETIMES.map(([value, shown]) => (
              <option key={value} value={value}>
                {shown}
              </option>
            ))}
          </select>
        </label>
        {lifetime === "day" && (
          <label className="field">
            Last day
            <input
              className="input"
              type="date"
              required
              value={day}
              onChange={(event) => setDay(event.target.value)}
            />
          </label>
        )}
        <label className="field">
          Only from
          <input
            className="input mono"
            value={networks}
            maxLength={4_000}
            placeholder="10.0.0.0/8; empty: anywhere"
            autoComplete="off"
            onChange={(event) => setNetworks(event.target.value)}
          />
        </label>
        {RATES.map(({ name, label, example, meaning }) => (
          <label className="field" key={name}>
            {label}
            <input
              className="input mono"
              value={rates[name]}
              maxLength={60}
              placeholder={example}
              autoComplete="off"
              spellCheck={false}
              onChange={(event) => setRates({ ...rates, [name]: event.target.value })}
            />
            <small>{meaning}</small>
          </label>
        ))}
      </div>
    </FormDialog>
  );
}

function MadeKey({ name, text, onClose }: { name: string; text: string; onClose: () => void }) {
  return (
    <Dialog title={`The key ${name}`} onClose={onClose} staysOpen>
      <p className="note" data-tone="warn">
        Copy it now: it is shown this once. Only its hash is kept.
      </p>
      <p className="made-key">
        <code>{text}</code>
        <Button kind="primary" onClick={() => void copy(text, "the key")}>
          Copy
        </Button>
      </p>
      <p className="muted">
        It goes along as <code>Authorization: Bearer …</code>, and acts everywhere within two seconds.
      </p>
      <div className="row-actions dialog-actions">
        <Button onClick={onClose}>Done</Button>
      </div>
    </Dialog>
  );
}

/** ISO 8601; a day is the reader's, to its end. */
function expiry(lifetime: string, day: string): string | null {
  if (lifetime === "") return null;
  if (lifetime === "day") return new Date(`${day}T23:59:59`).toISOString();
  return new Date(Date.now() + Number(lifetime) * DAY_MS).toISOString();
}
