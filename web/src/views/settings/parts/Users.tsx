import { useState } from "react";
import { Badge } from "../../../shared/Badge";
import { Button } from "../../../shared/Button";
import { Find } from "../../../shared/Find";
import { More } from "../../../shared/More";
import { Empty, ErrorState, Loading } from "../../../shared/states";
import { Time } from "../../../shared/Time";
import { toastProblem } from "../../../shared/toast";
import { changeUser, type User, useChange, useUsers } from "../queries";
import type { SettingsState, UpdateSettings } from "../state";
import { Confirm } from "./Confirm";
import { May } from "./May";
import { PasswordDialog } from "./PasswordDialog";
import { NewUserDialog, UserPermissionsDialog } from "./UserDialog";

type Doing = { what: "new" } | { what: "permissions" | "password" | "disable"; user: User };

/** own: the name of who is logged in; null: a key. */
export function Users({ state, update, own }: { state: SettingsState; update: UpdateSettings; own: string | null }) {
  const { data, error, refetch, hasNextPage, isFetchingNextPage, fetchNextPage } = useUsers(state.find);
  const [doing, setDoing] = useState<Doing | null>(null);
  const change = useChange(changeUser, ({ name, disabled }) =>
    disabled ? `${name} is let in no more` : `${name} can log in again`,
  );
  const users = data?.pages.flatMap((page) => page.users) ?? [];
  const close = () => {
    change.reset();
    setDoing(null);
  };
  return (
    <>
      <div className="row-actions">
        <Find
          label="Find a user"
          placeholder="part of a name"
          text={state.find}
          onText={(find) => update({ find }, { replace: true })}
        />
        <span className="spread" />
        <Button kind="primary" onClick={() => setDoing({ what: "new" })}>
          New user
        </Button>
      </div>
      {data === undefined ? (
        error !== null ? (
          <ErrorState problem={error} permission="admin" onRetry={() => void refetch()} />
        ) : (
          <Loading label="Asking for users" />
        )
      ) : users.length === 0 ? (
        state.find === "" ? (
          <Empty title="No user yet" actions={<Button onClick={() => setDoing({ what: "new" })}>New user</Button>}>
            People log in with a name and a password, or through the login provider.
          </Empty>
        ) : (
          <Empty title="No such user" actions={<Button onClick={() => update({ find: "" })}>Show all</Button>}>
            No name has “{state.find}” in it.
          </Empty>
        )
      ) : (
        <table className="values">
          <thead>
            <tr>
              <th>State</th>
              <th>Name</th>
              <th>May</th>
              <th>Logs in</th>
              <th>Made</th>
              <th>
                <span className="hidden-text">Actions</span>
              </th>
            </tr>
          </thead>
          <tbody>
            {users.map((user) => (
              <tr key={user.name}>
                <td data-head="State">
                  <Badge tone={user.state === "good" ? "good" : "plain"}>{user.state}</Badge>
                </td>
                <td data-head="Name">
                  <span>
                    {user.name} {user.name === own && <span className="muted">(you)</span>}
                  </span>
                </td>
                <td data-head="May">
                  <May permissions={user.permissions} />
                </td>
                <td data-head="Logs in">{user.issuer === null ? "with a password" : `through ${user.issuer}`}</td>
                <td data-head="Made">
                  <Time at={user.created_at} />
                </td>
                <td className="number">
                  <UserActions
                    user={user}
                    isOwn={user.name === own}
                    onDo={(what) => setDoing({ what, user })}
                    onLetIn={() => change.mutate({ name: user.name, disabled: false }, { onError: toastProblem })}
                  />
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
      {hasNextPage && <More isLoading={isFetchingNextPage} onMore={() => void fetchNextPage()} />}
      {doing?.what === "new" && <NewUserDialog onClose={close} />}
      {doing?.what === "permissions" && <UserPermissionsDialog user={doing.user} onClose={close} />}
      {doing?.what === "password" && (
        <PasswordDialog name={doing.user.name} isOwn={doing.user.name === own} onClose={close} />
      )}
      {doing?.what === "disable" && (
        <Confirm
          title={`Disable ${doing.user.name}?`}
          action="Disable"
          value={{ name: doing.user.name, disabled: true }}
          change={change}
          onClose={close}
        >
          Their sessions end within two seconds, and nobody logs in as {doing.user.name}. Their bookmarks and saved
          views go. You can let them in again.
        </Confirm>
      )}
    </>
  );
}

function UserActions({
  user,
  isOwn,
  onDo,
  onLetIn,
}: {
  user: User;
  isOwn: boolean;
  onDo: (what: "permissions" | "password" | "disable") => void;
  onLetIn: () => void;
}) {
  return (
    <div className="row-actions user-actions">
      {user.issuer === null && (
        <>
          <Button aria-label={`Permissions of ${user.name}`} onClick={() => onDo("permissions")}>
            Permissions
          </Button>
          <Button aria-label={`Password of ${user.name}`} onClick={() => onDo("password")}>
            Password
          </Button>
        </>
      )}
      {user.state !== "good" ? (
        <Button aria-label={`Let ${user.name} in again`} onClick={onLetIn}>
          Let in again
        </Button>
      ) : (
        !isOwn && (
          <Button aria-label={`Disable ${user.name}`} onClick={() => onDo("disable")}>
            Disable
          </Button>
        )
      )}
    </div>
  );
}
