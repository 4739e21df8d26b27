import { useState } from "react";
import { Badge, type Tone } from "../../../shared/Badge";
import { Button } from "../../../shared/Button";
import { Find } from "../../../shared/Find";
import { More } from "../../../shared/More";
import { Empty, ErrorState, Loading } from "../../../shared/states";
import { Distance, Time } from "../../../shared/Time";
import { shownRates } from "../engine/rates";
import { type Key, revokeKey, useChange, useKeys } from "../queries";
import type { SettingsState, UpdateSettings } from "../state";
import { Confirm } from "./Confirm";
import { KeyDialog } from "./KeyDialog";
import { May } from "./May";

const TONES: Record<string, Tone> = { good: "good", expired: "warn", revoked: "plain" };

/** subject: who is logged in: nobody revokes the key that they came with. */
export function Keys({ state, update, subject }: { state: SettingsState; update: UpdateSettings; subject: string }) {
  const { data, error, refetch, hasNextPage, isFetchingNextPage, fetchNextPage } = useKeys(state.find, state.all);
  const [isMaking, setIsMaking] = useState(false);
  const [revoking, setRevoking] = useState<Key | null>(null);
  const revoke = useChange(revokeKey, (key: Key) => `${key.name} is revoked`);
  const keys = data?.pages.flatMap((page) => page.keys) ?? [];
  return (
    <>
      <div className="row-actions">
        <Find
          label="Find a key"
          placeholder="part of a name, or a prefix"
          text={state.find}
          onText={(find) => update({ find }, { replace: true })}
        />
        <Button aria-pressed={state.all} onClick={() => update({ all: !state.all })}>
          Revoked and expired too
        </Button>
        <span className="spread" />
        <Button kind="primary" onClick={() => setIsMaking(true)}>
          New key
        </Button>
      </div>
      {data === undefined ? (
        error !== null ? (
          <ErrorState problem={error} permission="admin" onRetry={() => void refetch()} />
        ) : (
          <Loading label="Asking for keys" />
        )
      ) : keys.length === 0 ? (
        state.find === "" ? (
          <Empty title="No key yet" actions={<Button onClick={() => setIsMaking(true)}>New key</Button>}>
            Programs send and ask with API keys, each for some services.
          </Empty>
        ) : (
          <Empty title="No such key" actions={<Button onClick={() => update({ find: "" })}>Show all</Button>}>
            No name has “{state.find}” in it, and no key this prefix.
          </Empty>
        )
      ) : (
        <table className="values">
          <thead>
            <tr>
              <th>State</th>
              <th>Name</th>
              <th>Key</th>
              <th>May</th>
              <th>Last used</th>
              <th>Expires</th>
              <th>Made</th>
              <th>
                <span className="hidden-text">Actions</span>
              </th>
            </tr>
          </thead>
          <tbody>
            {keys.map((key) => (
              <tr key={key.prefix}>
                <td data-head="State">
                  <Badge tone={TONES[key.state] ?? "plain"}>{key.state}</Badge>
                </td>
                <td data-head="Name">{key.name}</td>
                <td data-head="Key" className="mono">
                  lf_{key.prefix}_…
                </td>
                <td data-head="May">
                  <span>
                    <May permissions={key.permissions} />
                    {shownRates(key) !== "" && <span className="muted"> at most {shownRates(key)}</span>}
                    {key.networks.length > 0 && <span className="muted"> from {key.networks.join(", ")}</span>}
                  </span>
                </td>
                <td data-head="Last used">
                  {key.last_used_at === null ? (
                    <span className="muted">never</span>
                  ) : (
                    <Distance at={key.last_used_at} />
                  )}
                </td>
                <td data-head="Expires">
                  {key.expires_at === null ? <span className="muted">never</span> : <Distance at={key.expires_at} />}
                </td>
                <td data-head="Made">
                  <span>
                    <Time at={key.created_at} /> <span className="muted">by {key.created_by}</span>
                  </span>
                </td>
                <td className="number">
                  {subject === `key:${key.prefix}` ? (
                    <span className="muted">you are using it</span>
                  ) : (
                    key.state !== "revoked" && (
                      <Button aria-label={`Revoke ${key.name}`} onClick={() => setRevoking(key)}>
                        Revoke
                      </Button>
                    )
                  )}
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
      {hasNextPage && <More isLoading={isFetchingNextPage} onMore={() => void fetchNextPage()} />}
      {isMaking && <KeyDialog onClose={() => setIsMaking(false)} />}
      {revoking !== null && (
        <Confirm
          title={`Revoke ${revoking.name}?`}
          action="Revoke it"
          value={revoking}
          change={revoke}
          onClose={() => {
            revoke.reset();
            setRevoking(null);
          }}
        >
          Whatever uses <code>lf_{revoking.prefix}_…</code> is refused everywhere within two seconds, for good.
        </Confirm>
      )}
    </>
  );
}
