import { useState } from "react";
import { session } from "../../../api/session";
import { setPassword, useChange } from "../queries";
import { FormDialog, problemText } from "./FormDialog";

/** isOwn: asks for the present one, and logs in anew afterwards: all sessions end with a password. */
export function PasswordDialog({ name, isOwn, onClose }: { name: string; isOwn: boolean; onClose: () => void }) {
  const [current, setCurrent] = useState("");
  const [password, setNew] = useState("");
  const [again, setAgain] = useState("");
  const [problem, setProblem] = useState("");
  const change = useChange(
    async (wanted: Parameters<typeof setPassword>[0]) => {
      await setPassword(wanted);
      if (isOwn) await session.login(name, wanted.password);
    },
    () => (isOwn ? "Your password is changed; your other sessions have ended" : `${name} has another password`),
  );
  const submit = () => {
    setProblem(password === again ? "" : "These are two different passwords.");
    if (password !== again) return;
    change.mutate({ name, password, ...(isOwn ? { current_password: current } : {}) }, { onSuccess: onClose });
  };
  return (
    <FormDialog
      title={isOwn ? "Change your password" : `Set the password of ${name}`}
      action={isOwn ? "Change it" : "Set it"}
      problem={problemText(problem, change.error)}
      isBusy={change.isPending}
      onSubmit={submit}
      onClose={onClose}
    >
      <input
        className="hidden-text"
        type="text"
        autoComplete="username"
        value={name}
        readOnly
        tabIndex={-1}
        aria-hidden
      />
      {isOwn && (
        <label className="field">
          Present password
          <input
            className="input"
            type="password"
            autoComplete="current-password"
            required
            maxLength={1_024}
            value={current}
            onChange={(event) => setCurrent(event.target.value)}
          />
        </label>
      )}
      <NewPasswordFields password={password} again={again} onPassword={setNew} onAgain={setAgain} />
      <p className="muted">{isOwn ? "Your other sessions end." : "Their sessions end."}</p>
    </FormDialog>
  );
}

export function NewPasswordFields({
  password,
  again,
  onPassword,
  onAgain,
}: {
  password: string;
  again: string;
  onPassword: (password: string) => void;
  onAgain: (password: string) => void;
}) {
  return (
    <div className="form-grid">
      <label className="field">
        New password
        <input
          className="input"
          type="password"
          autoComplete="new-password"
          required
          minLength={10}
          maxLength={1_024}
          value={password}
          onChange={(event) => onPassword(event.target.value)}
        />
        <small>Ten characters or more.</small>
      </label>
      <label className="field">
        Once more
        <input
          className="input"
          type="password"
          autoComplete="new-password"
          required
          maxLength={1_024}
          value={again}
          onChange={(event) => onAgain(event.target.value)}
        />
      </label>
    </div>
  );
}
