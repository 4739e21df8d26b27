import { useState } from "react";
import { EMPTY_ROW, hostsOf, permissionsOf, type Row, rowsOf } from "../engine/permissions";
import { changeUser, makeUser, type User, useChange } from "../queries";
import { FormDialog, problemText } from "./FormDialog";
import { NewPasswordFields } from "./PasswordDialog";
import { HostsField, PermissionRows } from "./PermissionRows";

export function NewUserDialog({ onClose }: { onClose: () => void }) {
  const [name, setName] = useState("");
  const [rows, setRows] = useState<Row[]>([{ ...EMPTY_ROW, names: ["read", "tail"] }]);
  const [hosts, setHosts] = useState("");
  const [password, setPassword] = useState("");
  const [again, setAgain] = useState("");
  const [problem, setProblem] = useState("");
  const make = useChange(makeUser, (wanted) => `${wanted.name} can log in`);
  const submit = () => {
    const read = permissionsOf(rows, hosts);
    const wrong = !read.ok ? read.problem : password === again ? "" : "These are two different passwords.";
    setProblem(wrong);
    if (wrong !== "" || !read.ok) return;
    make.mutate({ name: name.trim(), permissions: read.permissions, password }, { onSuccess: onClose });
  };
  return (
    <FormDialog
      title="New user"
      action="Make the user"
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
          placeholder="ann"
          autoComplete="off"
          autoCapitalize="none"
          spellCheck={false}
          onChange={(event) => setName(event.target.value)}
        />
        <small>Lower-case letters, digits and . _ @ + -</small>
      </label>
      <PermissionRows rows={rows} onRows={setRows} />
      <HostsField hosts={hosts} onHosts={setHosts} />
      <NewPasswordFields password={password} again={again} onPassword={setPassword} onAgain={setAgain} />
    </FormDialog>
  );
}

export function UserPermissionsDialog({ user, onClose }: { user: User; onClose: () => void }) {
  const [rows, setRows] = useState<Row[]>(() => rowsOf(user.permissions));
  const [hosts, setHosts] = useState(() => hostsOf(user.permissions));
  const [problem, setProblem] = useState("");
  const change = useChange(changeUser, () => `${user.name} may what you have chosen`);
  const submit = () => {
    const read = permissionsOf(rows, hosts);
    setProblem(read.ok ? "" : read.problem);
    if (read.ok) change.mutate({ name: user.name, permissions: read.permissions }, { onSuccess: onClose });
  };
  return (
    <FormDialog
      title={`What ${user.name} may`}
      action="Save"
      problem={problemText(problem, change.error)}
      isBusy={change.isPending}
      onSubmit={submit}
      onClose={onClose}
    >
      <PermissionRows rows={rows.length === 0 ? [EMPTY_ROW] : rows} onRows={setRows} />
      <HostsField hosts={hosts} onHosts={setHosts} />
    </FormDialog>
  );
}
