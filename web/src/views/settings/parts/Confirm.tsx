import type { ReactNode } from "react";
import { FormDialog, problemText } from "./FormDialog";

/** Asks before something that takes a right away. change: of useChange. */
export function Confirm<T>({
  title,
  action,
  value,
  change,
  onClose,
  children,
}: {
  title: string;
  action: string;
  value: T;
  change: { mutate: (value: T, options: { onSuccess: () => void }) => void; error: Error | null; isPending: boolean };
  onClose: () => void;
  children: ReactNode;
}) {
  return (
    <FormDialog
      title={title}
      action={action}
      problem={problemText("", change.error)}
      isBusy={change.isPending}
      onSubmit={() => change.mutate(value, { onSuccess: onClose })}
      onClose={onClose}
    >
      <p>{children}</p>
    </FormDialog>
  );
}
