import { useState, useSyncExternalStore } from "react";
import { session } from "../../../api/session";
import { THEMES, theme, useTheme, useZone, ZONES, zone } from "../../../app/theme";
import { Badge } from "../../../shared/Badge";
import { Button } from "../../../shared/Button";
import { copy } from "../../../shared/toast";
import { commandsOf } from "../engine/commands";
import { ALL_PERMISSIONS, administersAll } from "../engine/permissions";
import { PasswordDialog } from "./PasswordDialog";

const THEME_NAMES = { system: "As the system", light: "Light", dark: "Dark" };
const ZONE_NAMES = { local: "Local time", UTC: "UTC" };

/** How the page looks in this browser, who is logged in, and what they may. */
export function Session() {
  const state = useSyncExternalStore(session.subscribe, session.current);
  const shownTheme = useTheme();
  const shownZone = useZone();
  const [isChanging, setIsChanging] = useState(false);
  const isAdmin = administersAll(state);
  const identity = state.kind === "in" ? state.identity : null;
  return (
    <>
      <div className="cards">
        <section className="card" aria-label="This browser">
          <h2>This browser</h2>
          <dl className="facts">
            <dt>Colours</dt>
            <dd>
              <fieldset className="segmented" aria-label="Colours">
                {THEMES.map((each) => (
                  <Button key={each} kind="quiet" aria-pressed={each === shownTheme} onClick={() => theme.set(each)}>
                    {THEME_NAMES[each]}
                  </Button>
                ))}
              </fieldset>
            </dd>
            <dt>Times</dt>
            <dd>
              <fieldset className="segmented" aria-label="Times">
                {ZONES.map((each) => (
                  <Button key={each} kind="quiet" aria-pressed={each === shownZone} onClick={() => zone.set(each)}>
                    {ZONE_NAMES[each]}
                  </Button>
                ))}
              </fieldset>
            </dd>
          </dl>
        </section>
        <section className="card" aria-label="Your session">
          <h2>Your session</h2>
          {identity === null ? (
            <p>Access control is switched off here: everybody may everything.</p>
          ) : (
            <>
              <dl className="facts">
                <dt>Name</dt>
                <dd>{identity.name}</dd>
                <dt>Subject</dt>
                <dd className="mono">{identity.subject}</dd>
                <dt>Kind</dt>
                <dd>
                  {identity.subject.startsWith("key:")
                    ? "an API key, for as long as this page is open"
                    : "a user, who stays logged in after a reload"}
                </dd>
              </dl>
              <div className="row-actions">
                {identity.subject.startsWith("user:") && (
                  <Button onClick={() => setIsChanging(true)}>Change your password</Button>
                )}
                <Button onClick={() => void session.logout()}>Sign out</Button>
              </div>
            </>
          )}
        </section>
      </div>
      <section className="card" aria-label="What you may">
        <h2>What you may</h2>
        <table className="values">
          <thead>
            <tr>
              <th>Permission</th>
              <th>For</th>
              <th>What it opens</th>
            </tr>
          </thead>
          <tbody>
            {ALL_PERMISSIONS.map(({ name, meaning }) => {
              const services = identity === null ? ["*"] : (identity.permissions[name] ?? []);
              return (
                <tr key={name}>
                  <td data-head="Permission">
                    <Badge tone={services.length > 0 ? "good" : "plain"}>{name}</Badge>
                  </td>
                  <td data-head="For">
                    {services.length === 0 ? (
                      <span className="muted">nothing</span>
                    ) : (
                      <span className="labels">
                        {services.map((each) => (
                          <span className="label" key={each}>
                            {each === "*" ? `all ${name === "host" ? "hosts" : "services"}` : each}
                          </span>
                        ))}
                      </span>
                    )}
                  </td>
                  <td data-head="Opens" className="muted">
                    {meaning}
                  </td>
                </tr>
              );
            })}
          </tbody>
        </table>
      </section>
      <section className="card" aria-label="Changing it">
        <h2>Changing it</h2>
        <p className="muted">
          {isAdmin
            ? "Keys and users have their parts here; these commands on the server do the same. Both act everywhere within two seconds."
            : "Whoever administers Logfeed changes it, here or by these commands on the server."}
        </p>
        <ul className="commands">
          {commandsOf(identity?.subject ?? "anyone", identity?.name ?? "anyone").map(({ what, line }) => (
            <li key={line}>
              <span>{what}</span>
              <code>{line}</code>
              <Button kind="quiet" aria-label={`Copy: ${what}`} onClick={() => void copy(line, "the command")}>
                Copy
              </Button>
            </li>
          ))}
        </ul>
      </section>
      {isChanging && identity !== null && (
        <PasswordDialog name={identity.name} isOwn onClose={() => setIsChanging(false)} />
      )}
    </>
  );
}
