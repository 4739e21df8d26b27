/** Settings: this browser, who is logged in and what they may; keys and users, for who administers all services. */
import { useSyncExternalStore } from "react";
import { session } from "../../api/session";
import { useSearch } from "../../router/router";
import { Empty, NoPermission } from "../../shared/states";
import { Tabs } from "../../shared/Tabs";
import { administersAll } from "./engine/permissions";
import { Keys } from "./parts/Keys";
import { Session } from "./parts/Session";
import { Users } from "./parts/Users";
import "./settings.css";
import { SETTINGS } from "./state";

export default function SettingsView() {
  const [state, update] = useSearch(SETTINGS);
  const who = useSyncExternalStore(session.subscribe, session.current);
  const identity = who.kind === "in" ? who.identity : null;
  const isAdmin = administersAll(who);
  const own = identity?.subject.startsWith("user:") ? identity.name : null;
  return (
    <div className="page settings">
      <h1>Settings</h1>
      {(isAdmin || state.tab !== "session") && (
        <Tabs
          label="Parts of settings"
          current={state.tab}
          onTab={(tab) => update({ tab, find: "", all: false })}
          tabs={[
            { id: "session", name: "Session" },
            { id: "keys", name: "Keys" },
            { id: "users", name: "Users" },
          ]}
        />
      )}
      {state.tab === "session" ? (
        <Session />
      ) : identity === null ? (
        <Empty title="Everybody may everything">
          Access control is switched off here: there are no keys and users.
        </Empty>
      ) : !isAdmin ? (
        <NoPermission permission="admin" detail="keys and users take it on all services" />
      ) : state.tab === "keys" ? (
        <Keys state={state} update={update} subject={identity.subject} />
      ) : (
        <Users state={state} update={update} own={own} />
      )}
    </div>
  );
}
