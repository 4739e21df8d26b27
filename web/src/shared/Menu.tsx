/** A button that opens a list of choices. Arrow keys move, Escape and a click elsewhere close it. */
import {
  createContext,
  type KeyboardEvent,
  type ReactNode,
  useContext,
  useEffect,
  useId,
  useRef,
  useState,
} from "react";
import { Button, type ButtonKind } from "./Button";

const Close = createContext<() => void>(() => undefined);

export function Menu({
  label,
  button,
  kind = "plain",
  align = "end",
  children,
}: {
  /** What the button says to who does not see it. */
  label: string;
  button: ReactNode;
  kind?: ButtonKind;
  align?: "start" | "end";
  children: ReactNode;
}) {
  const [isOpen, setIsOpen] = useState(false);
  const whole = useRef<HTMLDivElement>(null);
  const id = useId();

  useEffect(() => {
    if (!isOpen) return;
    whole.current?.querySelector<HTMLElement>(".menu-item")?.focus();
    const outside = (event: PointerEvent) => {
      if (event.target instanceof Node && !whole.current?.contains(event.target)) setIsOpen(false);
    };
    document.addEventListener("pointerdown", outside);
    return () => document.removeEventListener("pointerdown", outside);
  }, [isOpen]);

  const close = () => {
    setIsOpen(false);
    whole.current?.querySelector<HTMLElement>(".button")?.focus();
  };
  const move = (event: KeyboardEvent) => {
    if (!isOpen) return;
    if (event.key === "Escape") {
      event.stopPropagation();
      close();
      return;
    }
    const items = [...(whole.current?.querySelectorAll<HTMLElement>(".menu-item") ?? [])];
    const at = items.indexOf(document.activeElement as HTMLElement);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: items.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    items[(to + items.length) % items.length]?.focus();
  };

  return (
    // biome-ignore lint/a11y/noStaticElementInteractions: keys of the menu inside come through here
    <div className="menu" data-align={align} ref={whole} onKeyDown={move}>
      <Button
        kind={kind}
        aria-haspopup="menu"
        aria-expanded={isOpen}
        aria-controls={isOpen ? id : undefined}
        aria-label={typeof button === "string" ? `${label}: ${button}` : label}
        onClick={() => setIsOpen(!isOpen)}
      >
        {button}
        <span aria-hidden="true">▾</span>
      </Button>
      {isOpen && (
        <div className="menu-list" role="menu" id={id} aria-label={label}>
          <Close.Provider value={close}>{children}</Close.Provider>
        </div>
      )}
    </div>
  );
}

/** One choice. isChecked: one of several that exclude each other. href: leads out of the page. */
export function MenuItem({
  children,
  onChoose,
  href,
  isChecked,
}: {
  children: ReactNode;
  onChoose?: () => void;
  href?: string;
  isChecked?: boolean;
}) {
  const close = useContext(Close);
  if (href !== undefined) {
    return (
      <a className="menu-item" role="menuitem" href={href} tabIndex={-1}>
        {children}
      </a>
    );
  }
  const role = isChecked === undefined ? { role: "menuitem" } : { role: "menuitemradio", "aria-checked": isChecked };
  return (
    <button
      type="button"
      className="menu-item"
      {...role}
      tabIndex={-1}
      onClick={() => {
        close();
        onChoose?.();
      }}
    >
      {isChecked !== undefined && (
        <span className="menu-check" aria-hidden="true">
          {isChecked ? "✓" : ""}
        </span>
      )}
      {children}
    </button>
  );
}

export function MenuTitle({ children }: { children: ReactNode }) {
  return (
    <div className="menu-title" role="presentation">
      {children}
    </div>
  );
}
