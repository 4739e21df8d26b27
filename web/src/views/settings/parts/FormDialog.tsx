import type { FormEvent, ReactNode } from "react";
import { Button } from "../../../shared/Button";
import { Dialog } from "../../../shared/Dialog";

/** A dialog that asks for something and does it; what is wrong stands above its buttons. */
export function FormDialog({
  title,
  action,
  problem,
  isBusy,
  onSubmit,
  onClose,
  children,
}: {
  title: string;
  /** What the button says. */
  action: string;
  problem: string;
  isBusy: boolean;
  onSubmit: () => void;
  onClose: () => void;
  children: ReactNode;
}) {
  const submit = (event: FormEvent) => {
    event.preventDefault();
    onSubmit();
  };
  return (
    <Dialog title={title} onClose={onClose}>
      <form className="settings-form" onSubmit={submit}>
        {children}
        <p className="field-problem" role="alert">
          {problem}
        </p>
        <div className="row-actions dialog-actions">
          <Button onClick={onClose}>Cancel</Button>
          <Button type="submit" kind="primary" disabled={isBusy}>
            {action}
          </Button>
        </div>
      </form>
    </Dialog>
  );
}

/** What went wrong last, in words. */
export function problemText(own: string, error: Error | null): string {
  if (own !== "") return own;
  return error === null ? "" : "detail" in error ? String(error.detail) : error.message;
}
