import { useId } from "react";
import { Button } from "../../../shared/Button";
import { EMPTY_ROW, PERMISSIONS, type Row } from "../engine/permissions";
import { useServiceNames } from "../queries";

/** Services, and what may be done with them: a row for each set of services. */
export function PermissionRows({ rows, onRows }: { rows: Row[]; onRows: (rows: Row[]) => void }) {
  const names = useServiceNames();
  const list = useId();
  const change = (at: number, patch: Partial<Row>) =>
    onRows(rows.map((row, index) => (index === at ? { ...row, ...patch } : row)));
  return (
    <div className="permission-rows">
      {rows.map((row, index) => {
        const which = rows.length === 1 ? "Services" : `Services ${index + 1}`;
        return (
          // biome-ignore lint/suspicious/noArrayIndexKey: rows have no other name
          <fieldset className="permission-row" key={index} aria-label={which}>
            <label className="field">
              {which}
              <input
                className="input mono"
                list={list}
                value={row.services}
                maxLength={4_000}
                placeholder="shop, pay/*, or * for all"
                autoComplete="off"
                spellCheck={false}
                onChange={(event) => change(index, { services: event.target.value })}
              />
            </label>
            <div className="permission-checks">
              {PERMISSIONS.map(({ name, meaning }) => (
                <label key={name} title={meaning}>
                  <input
                    type="checkbox"
                    checked={row.names.includes(name)}
                    onChange={(event) =>
                      change(index, {
                        names: event.target.checked ? [...row.names, name] : row.names.filter((each) => each !== name),
                      })
                    }
                  />
                  {name}
                </label>
              ))}
              {rows.length > 1 && (
                <Button
                  kind="quiet"
                  aria-label={`Remove ${which.toLowerCase()}`}
                  onClick={() => onRows(rows.filter((_, at) => at !== index))}
                >
                  Remove
                </Button>
              )}
            </div>
          </fieldset>
        );
      })}
      <datalist id={list}>
        {names.slice(0, 500).map((name) => (
          <option key={name} value={name} />
        ))}
      </datalist>
      <p>
        <Button onClick={() => onRows([...rows, EMPTY_ROW])}>Other services …</Button>
      </p>
    </div>
  );
}

/** Hosts that may be registered: no services, so they have a field of their own. */
export function HostsField({ hosts, onHosts }: { hosts: string; onHosts: (hosts: string) => void }) {
  return (
    <label className="field">
      Hosts
      <input
        className="input mono"
        value={hosts}
        maxLength={4_000}
        placeholder="web-1, db-*; empty: none"
        autoComplete="off"
        autoCapitalize="none"
        spellCheck={false}
        onChange={(event) => onHosts(event.target.value)}
      />
      <small>May be registered, for logfeed agent.</small>
    </label>
  );
}
