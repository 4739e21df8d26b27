import { type ReactNode, useId, useLayoutEffect, useRef } from "react";
import { Button } from "./Button";

/** A window over the view: Escape, the button and a click beside it close it; the browser keeps the focus inside. */
export function Dialog({
  title,
  onClose,
  staysOpen = false,
  children,
}: {
  title: string;
  onClose: () => void;
  /** A click beside it does not close it: what it shows is not shown again. */
  staysOpen?: boolean;
  children: ReactNode;
}) {
  const dialog = useRef<HTMLDialogElement>(null);
  const id = useId();
  // Closed before it goes: only then the focus goes back to where it was.
  useLayoutEffect(() => {
    const shown = dialog.current;
    if (shown !== null && !shown.open) shown.showModal();
    return () => shown?.close();
  }, []);
  return (
    // biome-ignore lint/a11y/useKeyWithClickEvents: Escape is the key for it
    <dialog
      className="dialog"
      ref={dialog}
      aria-labelledby={id}
      onCancel={(event) => {
        event.preventDefault();
        onClose();
      }}
      onClick={(event) => {
        if (event.target === event.currentTarget && !staysOpen) onClose();
      }}
    >
      <div className="dialog-head">
        <h1 id={id}>{title}</h1>
        <Button kind="quiet" aria-label="Close" onClick={onClose}>
          ✕
        </Button>
      </div>
      <div className="dialog-body">{children}</div>
    </dialog>
  );
}
